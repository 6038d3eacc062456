"""The commands beside `serve`: each declares its arguments here and imports torch only when it runs."""
