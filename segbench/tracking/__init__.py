"""OTHER PEOPLE'S VIEWS OF A SWEEP: MLflow in both directions, TensorBoard.

May import core to results; not terminal. The only imports of mlflow and tensorboardX.
"""
