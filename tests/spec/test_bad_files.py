"""A page of bad sweep files: each mistake gives file, line, key and a sentence that helps."""

import re
from pathlib import Path

import pytest

from segbench.core.errors import SpecError
from segbench.spec.load import load_spec

# name -> (text, line and key, what the sentence must say); every file is otherwise right
BAD_FILES: dict[str, tuple[str, str, str]] = {
    # names of keys
    "unknown section": ("serach: {seed: 1}", "4 serach", "did you mean 'search'?"),
    "typo in a section": ("search:\n  algoritm: tpe", "5 search.algoritm", "did you mean 'algorithm'?"),
    "key of another section": ("search:\n  trials: 3", "5 search.trials", "write budget.trials"),
    "a setting at the top": ("lr: 0.1", "4 lr", "write it under training: (fixed) or parameters: (searched)"),
    "Ray's max_t": ("scheduler:\n  max_t: 9", "5 scheduler.max_t", "write max_epochs"),
    "Ray's grace_period": ("scheduler: {grace_period: 1}", "4 scheduler.grace_period", "write grace_epochs"),
    "Ray's num_samples": ("num_samples: 9", "4 num_samples", "write budget.trials"),
    "Optuna's n_trials": ("budget: {n_trials: 9}", "4 budget.n_trials", "write trials"),
    "W&B's method": ("method: bayes", "4 method", "write search.algorithm"),
    "misspelt foreign key": ("metod: bayes", "4 metod", "write search.algorithm"),
    "key given twice": ("search:\n  seed: 1\n  seed: 2", "6 seed", "given twice in the same section; remove one"),
    "section given twice": ("parameters: {lr: 0.1}", "4 parameters", "given twice"),
    # values of keys
    "short goal": ("metric: {goal: max}", "4 metric.goal", "did you mean 'maximize'?"),
    "W&B's bayes": ("search: {algorithm: bayes}", "4 search.algorithm", "did you mean 'tpe'?"),
    "quoted number": ("budget: {trials: '9'}", "4 budget.trials", "must be a whole number, got '9' (text)"),
    "fraction of a trial": ("budget: {trials: 2.5}", "4 budget.trials", "must be a whole number, got 2.5"),
    "no trials": ("budget: {trials: 0}", "4 budget.trials", "must be at least 1, got 0"),
    "yes is text": ("mlflow: {enabled: yes}", "4 mlflow.enabled", "must be true or false, got 'yes'"),
    "empty section": ("scheduler:\nsearch: {}", "4 scheduler", "is empty; write its keys below it"),
    "section with one value": ("scheduler: asha", "4 scheduler", "must be a section (key: value lines)"),
    "negative gpu": ("resources: {gpu: -1}", "4 resources.gpu", "must be a number of at least 0, or auto, got -1"),
    "gpu in words": ("resources: {gpu: all}", "4 resources.gpu", "must be a number of at least 0, or auto, got 'all'"),
    "gpu as text": ("resources: {gpu: '1'}", "4 resources.gpu", "must be a number of at least 0, or auto, got '1'"),
    "a GPU for a function that cannot be probed": (
        "train: my.module:train\nresources: {gpu: auto}",
        "5 resources.gpu",
        "auto measures the built-in training function, not my.module:train; give a number",
    ),
    "compile in words": ("training: {compile: yes}", "4 training.compile", "must be one of 'auto', true, false"),
    "one and a half GPUs": ("resources: {gpu: 1.5}", "4 resources.gpu", "must be whole above 1, got 1.5"),
    "infinite time": ("budget: {trial_hours: .inf}", "4 budget.trial_hours", "must be a finite number, got inf"),
    "grace after the end": (
        "scheduler: {max_epochs: 3, grace_epochs: 5}",
        "4 scheduler",
        "grace_epochs=5 is above max_epochs=3; lower it",
    ),
    "retrained for less": (
        "retrain:\n  epochs: 5",
        "5 retrain.epochs",
        "epochs=5 is below scheduler.max_epochs=20",
    ),
    "more finalists than trials": (
        "budget: {trials: 2}\nretrain: {top_k: 3}",
        "5 retrain.top_k",
        "top_k=3 is above budget.trials=2",
    ),
    # fixed settings
    "negative learning rate": ("training: {lr: -1e-3}", "4 training.lr", "must be above 0, got -0.001"),
    "unknown setting": ("training: {optimiser: adamw}", "4 training.optimiser", "did you mean 'optimizer'?"),
    "unknown loss": ("training: {loss: dise}", "4 training.loss", "did you mean 'dice'?"),
    "batch that does not divide": (
        "training: {batch_size: 8, accumulation_steps: 3}",
        "4 training",
        "accumulation_steps=3 must divide batch_size=8",
    ),
    # metric and training function
    "a bound without a sign": (
        'require: {model/latency_ms: "30"}',
        "4 require.model/latency_ms",
        "must be <, <=, > or >= and a number, in quotes, such as '< 30', got '30'",
    ),
    "a bound that is a number": (
        "require:\n  model/parameters: 5",
        "5 require.model/parameters",
        "such as '< 30', got 5",
    ),
    "a bound on what nothing measures": (
        'require: {model/latency: "< 30"}',
        "4 require.model/latency",
        "did you mean 'model/latency_ms'?",
    ),
    "requirements that are a list": ('require: ["< 30"]', "4 require", "must be a mapping (key: value)"),
    "unknown metric": ("metric: {name: val/mIou}", "4 metric.name", "did you mean 'val/miou'?"),
    "metric of the test split": ("metric: {name: test/miou}", "4 metric.name", "the test split is read once"),
    "IoU of an unknown group": ("metric: {name: val/iou/humans}", "4 metric.name", "did you mean 'val/iou/human'?"),
    "loss maximized": ("metric: {name: val/loss}", "4 metric.goal", "write goal: minimize"),
    "train without function": ("train: my_module", "4 train", "must be package.module:function"),
    "data beside an own function": (
        "train: mine:train\ndata: {size: 64}",
        "5 data",
        "not read by mine:train; remove it",
    ),
    # data
    "cityscapes without root": ("data: {dataset: cityscapes}", "4 data", "root is missing"),
    "root that is not there": (
        "data:\n  dataset: cityscapes\n  root: nowhere",
        "6 data.root",
        "there is no folder 'nowhere'",
    ),
    "root of another layout": (
        "data: {dataset: cityscapes, root: .}",
        "4 data.root",
        "'.' has no leftImg8bit/ and no gtFine/",
    ),
    "root of generated scenes": ("data: {root: .}", "4 data.root", "is not read for dataset: streets"),
    "size of three numbers": ("data: {size: [3, 64, 64]}", "4 data.size", "must have 2 entries, not 3"),
    "size of one number": ("data: {size: [64]}", "4 data.size", "has too few entries"),
    "size of nothing": ("data: {size: 0}", "4 data.size", "must be at least 1 pixel"),
    "ignored group that is not there": ("data: {ignore: [viod]}", "4 data.ignore[0]", "did you mean 'void'?"),
    # baselines
    "baseline without name": ("baselines:\n  - parameters: {lr: 0.1}", "5 baselines[0].name", "is missing; add name"),
    "baseline with a bad name": (
        "baselines:\n  - {name: a b, parameters: {}}",
        "5 baselines[0].name",
        "'a b' must be letters, digits",
    ),
    "two baselines of one name": (
        "baselines:\n  - {name: a, parameters: {}}\n  - {name: a, parameters: {}}",
        "6 baselines[1].name",
        "'a' is the name of another baseline",
    ),
    "baseline with an unknown setting": (
        "baselines:\n  - name: a\n    parameters:\n      wdth: 8",
        "7 baselines[0].parameters.wdth",
        "did you mean 'width'?",
    ),
    "baseline with a bad value": (
        "baselines:\n  - name: a\n    parameters:\n      width: 0",
        "7 baselines[0].parameters.width",
        "must be at least 1, got 0",
    ),
    "baseline with several values": (
        "baselines:\n  - name: a\n    parameters:\n      width: [8, 16]",
        "7 baselines[0].parameters.width",
        "width has one number or word, got [8, 16]; lists and mappings are for a training function of your own",
    ),
    "baseline whose values clash": (
        "baselines:\n  - name: a\n    parameters: {batch_size: 3, accumulation_steps: 2}",
        "6 baselines[0].parameters",
        "accumulation_steps=2 must divide batch_size=3",
    ),
}

# the same for what stands under `parameters:`, from line 3 on
BAD_PARAMETERS: dict[str, tuple[str, str, str]] = {
    "unknown setting": ("learning_rate: 0.1", "3 parameters.learning_rate", "write lr"),
    "inverted range": ("lr: {min: 0.1, max: 0.01}", "3 parameters.lr", "min=0.1 is above max=0.01; swap them"),
    "empty range": ("lr: {min: 0.1, max: 0.1}", "3 parameters.lr", "min and max are both 0.1; write value: 0.1"),
    "half a range": ("lr: {min: 0.1}", "3 parameters.lr", "uniform needs min and max; max is missing"),
    "low and high": ("lr:\n  low: 0.1\n  high: 0.2", "4 parameters.lr.low", "unknown key 'low'; write min"),
    "log as a key": ("lr: {min: 0.1, max: 1, log: true}", "3 parameters.lr.log", "log_uniform_values"),
    "quoted bound": (
        "lr:\n  min: '1e-4'\n  max: 0.1",
        "4 parameters.lr.min",
        "must be a number, got '1e-4' (text); write 0.0001 without quotes",
    ),
    "unknown distribution": (
        "lr: {distribution: log_unifrom_values, min: 0.1, max: 1}",
        "3 parameters.lr.distribution",
        "did you mean 'log_uniform_values'?",
    ),
    "Ray's loguniform": (
        "lr: {distribution: loguniform, min: 0.1, max: 1}",
        "3 parameters.lr.distribution",
        "write log_uniform_values",
    ),
    "logarithm of zero": (
        "lr: {distribution: log_uniform_values, min: 0, max: 0.1}",
        "3 parameters.lr.min",
        "must be above 0 for log_uniform_values, got 0",
    ),
    "exponents that are values": (
        "lr: {distribution: log_uniform, min: 1e-5, max: 1e-1}",
        "3 parameters.lr",
        "log_uniform takes exponents: this draws from 1.00001 to 1.10517",
    ),
    "key of another distribution": (
        "lr: {distribution: normal, min: 0, max: 1}",
        "3 parameters.lr.min",
        "does not go with distribution normal, which takes mu, sigma",
    ),
    "value and values": ("lr: {value: 1, values: [1]}", "3 parameters.lr.values", "does not go with 'value'"),
    "no deviation": ("lr: {distribution: log_normal, sigma: 0}", "3 parameters.lr.sigma", "must be above 0, got 0"),
    "normal that may be negative": (
        "lr: {distribution: normal, mu: 0.1, sigma: 1.0}",
        "3 parameters.lr",
        "can draw -4.65342, but lr must be above 0",
    ),
    "no multiple in the range": (
        "width: {distribution: q_uniform, min: 9, max: 15, q: 8}",
        "3 parameters.width.q",
        "no multiple of q=8 lies between 9 and 15",
    ),
    "nothing to choose from": ("loss: {values: []}", "3 parameters.loss.values", "is empty"),
    "nothing at all": ("loss: {}", "3 parameters.loss", "has no values; write value, values, min and max"),
    "values that are no list": ("loss: {values: ce}", "3 parameters.loss.values", "must be a list, got 'ce'"),
    "a bare list": ("loss: [ce, dice]", "3 parameters.loss", 'is a list; write values: ["ce", "dice"]'),
    "a value listed twice": ("width: {values: [8, 16, 8]}", "3 parameters.width.values[2]", "8 is listed twice"),
    "a list as value": (
        "width: {values: [[8]]}",
        "3 parameters.width.values[0]",
        "width has one number or word, got [8]",
    ),
    "nothing below a name": ("lr:", "3 parameters.lr", "has nothing below it; write values: [...], or min and max"),
    "yes": (
        "channels_last: yes",
        "3 parameters.channels_last",
        "a boolean in W&B and a text here; write true, or 'yes'",
    ),
    "Off in a list": (
        "channels_last:\n  values: [true, Off]",
        "4 parameters.channels_last.values[1]",
        "write false, or 'Off'",
    ),
    "no in a condition": ("lr: {value: 1, when: {flip: no}}", "3 parameters.lr.when.flip", "write false, or 'no'"),
    "a draw of Hydra": ("width: choice(32, 64)", "3 parameters.width", "'choice(32, 64)' would be a text, not a draw"),
    "a draw in braces": ("{width: choice(32, 64)}", "3 parameters.width", "'choice(32' would be a text, not a draw"),
    "a draw of Ray": (
        "lr: tune.loguniform(1e-4, 1e-1)",
        "3 parameters.lr",
        "would be a text, not a draw; write values",
    ),
    "a draw in quotes": ("lr: 'uniform(0, 1)'", "3 parameters.lr", "would be a text, not a draw; write values: [...]"),
    "a draw as value": (
        "lr:\n  value: loguniform(1e-4, 1e-1)",
        "4 parameters.lr.value",
        "or put it in quotes if the text is meant",
    ),
    "too few probabilities": (
        "width: {values: [8, 16], probabilities: [1]}",
        "3 parameters.width.probabilities",
        "must be a list of 2 numbers, one for each of the values, got [1]",
    ),
    "a probability below zero": (
        "width: {values: [8, 16], probabilities: [1.5, -0.5]}",
        "3 parameters.width.probabilities[1]",
        "must be a number of at least 0, got -0.5",
    ),
    "probabilities that do not sum to 1": (
        "width: {values: [8, 16], probabilities: [0.5, 0.6]}",
        "3 parameters.width.probabilities",
        "must sum to 1, and [0.5, 0.6] sums to 1.1",
    ),
    "probabilities of a range": (
        "width: {min: 8, max: 16, probabilities: [0.5, 0.6]}",
        "3 parameters.width.probabilities",
        "does not go with 'min', which takes min, max",
    ),
    "the shapes of beta alone": (
        "flip: {a: 2, b: 3}",
        "3 parameters.flip",
        "a and b need distribution: beta or q_beta",
    ),
    "a flat shape of beta": (
        "flip: {distribution: beta, a: 0}",
        "3 parameters.flip.a",
        "must be above 0, got 0",
    ),
    "a steep shape of beta": ("flip: {distribution: beta, b: 1e9}", "3 parameters.flip.b", "must be at most 1e+06"),
    "values given as inverse exponents": (
        "lr: {distribution: inv_log_uniform, min: 1e-5, max: 1e-1}",
        "3 parameters.lr",
        "where min and max are values, write distribution: inv_log_uniform_values",
    ),
    "a guess outside": (
        "lr: {min: 0.1, max: 1.0, prior: 2}",
        "3 parameters.lr.prior",
        "must be a value that can be drawn, between 0.1 and 1.0, got 2",
    ),
    "a guess between the steps": (
        "width:\n  distribution: q_uniform\n  min: 8\n  max: 800\n  q: 8\n  prior: 12",
        "8 parameters.width.prior",
        "between 8 and 800 and a multiple of 8, got 12",
    ),
    "a guess that is not listed": (
        "loss: {values: [ce, dice], prior: focal}",
        "3 parameters.loss.prior",
        "one of 'ce', 'dice', got 'focal'",
    ),
    "a guess in quotes": (
        "lr: {min: 0.1, max: 1.0, prior: '0.5'}",
        "3 parameters.lr.prior",
        "write 0.5 without quotes",
    ),
    "a guess of a constant": ("lr: {value: 0.1, prior: 0.1}", "3 parameters.lr.prior", "this is always 0.1; remove it"),
    "a confidence in words": (
        "lr: {min: 0.1, max: 1.0, prior: 0.5, prior_confidence: very}",
        "3 parameters.lr.prior_confidence",
        "must be one of low, medium, high, got 'very'",
    ),
    "a confidence in nothing": (
        "lr: {min: 0.1, max: 1.0, prior_confidence: low}",
        "3 parameters.lr.prior_confidence",
        "write prior too, or remove it",
    ),
    "a wrong choice": ("norm: {values: [batch, gruop]}", "3 parameters.norm.values[1]", "did you mean 'group'?"),
    "a wrong constant": ("width: 0", "3 parameters.width", "must be at least 1, got 0"),
    "bound outside the setting's range": (
        "dropout: {min: 0.0, max: 1.0}",
        "3 parameters.dropout",
        "can draw 1, but dropout must be below 1",
    ),
    "whole bounds of a real setting": (
        "focal_gamma: {min: 0, max: 5}",
        "3 parameters.focal_gamma",
        "only whole numbers would be drawn, but focal_gamma is a real number; write min: 0.0",
    ),
    "real bounds of a whole setting": ("width: {min: 8, max: 64.0}", "3 parameters.width", "width is a whole number"),
    "range of words": ("loss: {min: 1, max: 3}", "3 parameters.loss", "must be one of 'ce', 'dice'"),
    "nested group": (
        "opt:\n  parameters: {lr: {min: 0.1, max: 1.0}}",
        "3 parameters.opt",
        "the built-in training function has no nested settings",
    ),
    "condition on an unknown parameter": (
        "lr:\n  value: 0.1\n  when: {modle: unet}",
        "5 parameters.lr.when.modle",
        "unknown parameter 'modle'; did you mean 'model'?",
    ),
    "condition on an impossible value": (
        "model: {values: [unet, segformer]}\nlr:\n  value: 0.1\n  when:\n    model: segfromer",
        "7 parameters.lr.when.model",
        "model is never 'segfromer'; it is one of 'unet', 'segformer'",
    ),
    "condition outside a range": (
        "width: {min: 8, max: 16}\nlr: {value: 0.1, when: {width: 32}}",
        "4 parameters.lr.when.width",
        "width is never 32; it is one of 8, 9,",
    ),
    "condition on a fixed setting": (
        "lr: {value: 0.1, when: {model: segformer}}",
        "3 parameters.lr.when.model",
        "never holds: model is always 'unet', and this asks for 'segformer'",
    ),
    "condition that is no mapping": ("lr: {value: 0.1, when: unet}", "3 parameters.lr.when", "must be a mapping"),
    "conditions in a circle": (
        "lr: {values: [0.1, 0.2], when: {loss: ce}}\nloss: {values: [ce, dice], when: {lr: 0.1}}",
        "3 parameters.lr.when",
        "the conditions go in a circle: lr -> loss -> lr",
    ),
    "condition on itself": (
        "lr: {values: [0.1, 0.2], when: {lr: 0.1}}",
        "3 parameters.lr.when",
        "the conditions go in a circle: lr -> lr",
    ),
    "conditions that exclude each other": (
        "model: {values: [unet, segformer]}\n"
        "norm: {values: [batch, group], when: {model: unet}}\n"
        "lr: {value: 0.1, when: {norm: group, model: segformer}}",
        "5 parameters.lr.when",
        "it asks for model='segformer', and norm for model='unet'",
    ),
    "values that clash": (
        "batch_size: {min: 4, max: 8}\naccumulation_steps: {values: [1, 2]}",
        "4 parameters.accumulation_steps",
        "can draw values where accumulation_steps=2 must divide batch_size=5",
    ),
    "dotted name": ("opt.lr: 0.1", "3 parameters.opt.lr", "no nested settings"),
}

UNREADABLE: dict[str, tuple[str, str]] = {
    "empty file": ("", ":1 file: is empty"),
    "only comments": ("# later\n", ":1 file: is empty"),
    "a list": ("- name: x\n", ":1 file: must be a mapping"),
    "one word": ("hello\n", ":1 file: must be a mapping"),
    "tab": ("name: x\nparameters:\n\tlr: 0.1\n", ":3 file: a tab is used for indentation"),
    "open bracket": ("name: x\nparameters: {lr: 0.1\n", "file: this is no valid YAML"),
    "open quote": ("name: 'x\n", "file: this is no valid YAML"),
    "no space after the colon": ("name: x\nparameters:\n  lr:0.1\n  wd: 3\n", "file: this is no valid YAML"),
    "unknown alias": ("name: x\nparameters: *space\n", ":2 file: this is no valid YAML"),
    "no name": ("parameters: {lr: 0.1}\n", ":1 name: is missing; add name: ..."),
    "no parameters": ("name: x\n", ":1 parameters: is missing"),
    "empty parameters": ("name: x\nparameters: {}\n", ":2 parameters: is empty; name at least one"),
    "nothing below parameters": ("name: x\nparameters:\n", ":2 parameters: must be a mapping"),
    "number as name": ("name: 7\nparameters: {lr: 0.1}\n", ":1 name: must be text, got 7; put quotes around it"),
    "name with a slash": ("name: a/b\nparameters: {lr: 0.1}\n", ":1 name: 'a/b' must be letters, digits"),
}


def message_of(path: Path, *overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_mistake_in_a_section_is_named_with_its_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text, place, sentence = BAD_FILES[case]
    Path("x.yaml").write_text(f"name: x\nparameters:\n  width: {{values: [8, 16]}}\n{text}\n")
    message = message_of(Path("x.yaml"))
    assert message.startswith(f"x.yaml:{place}: "), message
    assert sentence in message
    assert "\n" not in message, "one mistake, one line"


@pytest.mark.parametrize("case", BAD_PARAMETERS)
def test_a_mistake_in_the_space_is_named_with_its_line(case: str, tmp_path: Path) -> None:
    text, place, sentence = BAD_PARAMETERS[case]
    file = tmp_path / "x.yaml"
    file.write_text("name: x\nparameters:\n" + re.sub("^", "  ", text, flags=re.MULTILINE) + "\n")
    message = message_of(file)
    assert message.startswith(f"{file}:{place}: "), message
    assert sentence in message
    assert "\n" not in message, "one mistake, one line"


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_is_no_sweep_is_refused(case: str, tmp_path: Path) -> None:
    text, sentence = UNREADABLE[case]
    file = tmp_path / "x.yaml"
    file.write_text(text)
    message = message_of(file)
    assert message.startswith(str(file)), message
    assert sentence in message, message


def test_a_missing_file_is_named_with_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "unet.yaml").touch()
    message = message_of(tmp_path / "unett.yaml")
    assert "there is no such sweep file" in message
    assert "unet.yaml" in message


def test_a_folder_and_a_picture_are_no_sweep_files(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\xff\xfe")
    assert "this is a folder" in message_of(tmp_path)
    assert "not UTF-8 text" in message_of(tmp_path / "x.png")


def test_all_mistakes_are_reported_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("name: a b\nparameters:\n  lr: {min: 1.0, max: 0.1}\n  lrr: 1\nsearch: {sed: 1}\nbudget: 5\n")
    lines = message_of(file, "mlflow.x=1").splitlines()
    starts = ["name", "parameters.lr", "parameters.lrr", "search.sed", "budget"]
    assert [line.split(": ")[0] for line in lines[:-1]] == [
        f"{file}:{number} {key}" for number, key in zip((1, 3, 4, 5, 6), starts, strict=True)
    ]
    assert lines[-1].startswith("--set mlflow.x=1 mlflow.x: unknown key 'x'")


def test_names_of_a_function_of_ones_own_are_checked_in_baselines(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(
        "name: x\ntrain: mine:f\nparameters:\n  opt: {parameters: {rate: {min: 0.1, max: 1.0}}}\n"
        "baselines:\n  - {name: a, parameters: {opt: {rat: 0.5}}}\n"
    )
    assert message_of(file).startswith(f"{file}:6 baselines[0].parameters.opt.rat: unknown parameter 'opt.rat'; did")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("scheduler.max_epoch=3", "--set scheduler.max_epoch=3 scheduler.max_epoch: unknown key 'max_epoch'; did you"),
        ("schedular.x=3", "--set schedular.x=3 schedular: unknown key 'schedular'; did you mean 'scheduler'?"),
        ("retrain.top=3", "--set retrain.top=3 retrain.top: unknown key"),
        ("scheduler.max_epochs", "--set scheduler.max_epochs: write KEY=VALUE, such as"),
        ("=3", "--set =3: write KEY=VALUE"),
        ("scheduler.max_epochs=[1", "--set scheduler.max_epochs=[1 scheduler.max_epochs: the value is no valid YAML"),
        ("scheduler.max_epochs=many", "must be a whole number, got 'many'"),
        ("name.x=3", "--set name.x=3 name: is 'x', which has no keys; set name itself"),
        (
            "parameters.lr.min=9.0",
            "3 parameters.lr: min=9.0 is above max=1.0; swap them (with --set parameters.lr.min=9.0)",
        ),
        ("baselines.4.name=a", "--set baselines.4.name=a baselines: has entries 0 to 0, and no 4"),
    ],
)
def test_a_mistake_in_an_override_names_the_override(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(
        "name: x\nparameters:\n  lr: {min: 0.1, max: 1.0}\nbaselines:\n  - {name: a, parameters: {lr: 1.0}}\n"
    )
    assert sentence in message_of(file, text)
