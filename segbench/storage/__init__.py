"""A SWEEP'S FOLDER IN A BUCKET: what is durable there, what every node keeps of it, and who may write.

May import core only. The only use of pyarrow.fs.

bucket.py     whole objects: put, get, list, delete
lease.py      one driver at a time
segments.py   a ledger as small numbered objects, for buckets cannot append
mirror.py     the driver's working copy of the folder, on which everything that reads a folder works unchanged
workspace.py  a worker's scratch folder of one trial
"""
