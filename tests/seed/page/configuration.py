from transformers import LlavaNextVideoForConditionalGeneration, LlavaNextVideoConfig, CLIPVisionConfig, LlamaConfig
# Initializing a CLIP-vision config
vision_config = CLIPVisionConfig()
# Initializing a Llama config
text_config = LlamaConfig()
configuration = LlavaNextVideoConfig(vision_config, text_config)
model = LlavaNextVideoForConditionalGeneration(configuration)
# Accessing the model configuration
configuration = model.config
