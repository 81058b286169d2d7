"""A small real Hub for tests: two origins that speak what huggingface_hub speaks."""
