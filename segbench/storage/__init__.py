"""A sweep's folder in a bucket: what is durable there, what every node keeps of it, and who may write.

bucket.py     whole objects: put, get, list, delete; the only use of pyarrow.fs
lease.py      one driver at a time
segments.py   a ledger as small numbered objects, for buckets cannot append
mirror.py     the driver's working copy of the folder, on which everything that reads a folder works unchanged
workspace.py  a worker's scratch folder of one trial
"""
