"""The process that moves bytes: Python >= 3.9 and the standard library, nothing else of ours.

`blake3` is used for hashing where it can be imported on every side; otherwise `hashlib.blake2b`.
"""
