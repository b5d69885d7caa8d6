"""Fields of a config.json that change neither a model's weights nor what it keeps of a sequence."""

__all__ = ["IGNORED"]

IGNORED = frozenset(
    """
    architectures model_type auto_map transformers_version torch_dtype dtype use_cache initializer_range return_dict
    bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id decoder_start_token_id hidden_act hidden_activation
    rms_norm_eps layer_norm_eps layer_norm_epsilon layernorm_epsilon norm_eps norm_epsilon rope_theta rope_scaling
    rope_parameters rope_local_base_freq rope_interleave attention_dropout hidden_dropout attn_pdrop embd_pdrop
    resid_pdrop pretraining_tp output_router_logits router_aux_loss_coef norm_topk_prob routed_scaling_factor
    scoring_func topk_method n_group topk_group seq_aux aux_loss_alpha ep_size is_decoder is_encoder_decoder
    quantization_config vision_config audio_config tokenizer_class task_specific_params id2label label2id
    """.split()
)
