"""The policy of VIKI-R: Qwen2.5-VL as transformers has it, with texts and pictures in and answers out."""
