"""The folder of blobs and snapshots, in the ordinary Hugging Face cache layout."""
