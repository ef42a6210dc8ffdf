"""Work without a manifest: a folder or a file in, a job or its results out. Also the Python API of the trainer.

In: folders, and a few options. Out: the manifest of a training for a folder, and calls of the packages that run jobs.
It must not know the command line: nothing here prints or exits.
"""
