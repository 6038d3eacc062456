"""DeepSeek-V3's architecture in torch: MLA, MoE and rotary scaling, under DeepSeek's own names."""
