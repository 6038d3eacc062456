"""Where the weights come from: fetched, verified, converted to the DeepSeek-V3 layout once, and cached."""
