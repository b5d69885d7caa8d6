"""Fields of a config.json that change neither a model's weights nor what it keeps of a sequence."""

__all__ = ["is_ignored"]

IGNORED = {
    "who it is and how it was written": (
        "architectures model_type auto_map transformers_version dtype torch_dtype tokenizer_class "
        "task_specific_params id2label label2id problem_type custom_pipelines init_device name_or_path "
        "model_type_litgpt padded_vocab_size unpadded_vocab_size is_decoder is_encoder_decoder is_llama_config "
        "quantization_config compression_config vision_config audio_config text_config configuration auto_mapping"
    ),
    "training and sampling": (
        "initializer_range init_std init_method_std initializer_factor use_cache return_dict pretraining_tp "
        "router_aux_loss_coef output_router_logits output_attentions output_hidden_states aux_loss_alpha seq_aux "
        "aux_loss_coef z_loss_coefficient temperature top_p top_k do_sample max_length min_length typical_p "
        "repetition_penalty length_penalty num_beams num_beam_groups diversity_penalty no_repeat_ngram_size "
        "num_return_sequences chunk_size_feed_forward bos_token eos_token attn_implementation router_z_loss_coef "
        "num_logits_to_keep ep_size w_init_variance_scale final_w_init_variance_scale rescale_prenorm_residual "
        "use_mamba_kernels moe_implementation"
    ),
    "activations, norms, scales": (
        "hidden_act hidden_activation activation activation_function mlp_hidden_act mamba_hidden_act "
        "hidden_mamba_act rms_norm_eps layer_norm_eps layer_norm_epsilon layernorm_epsilon norm_eps norm_epsilon "
        "post_norm_eps norm_type normalization_type residual_in_fp32 embedding_multiplier attention_multiplier "
        "logits_scaling residual_multiplier logit_scale scale_emb scale_depth dim_model_base mup_enabled "
        "query_pre_attn_scalar attn_logit_softcapping final_logit_softcapping logits_soft_cap swiglu_limit "
        "swiglu_alpha attention_value_scale hc_eps hc_sinkhorn_iters hc_magnitude altup_coef_clip "
        "altup_active_idx activation_sparsity_pattern do_layer_norm_before "
        "apply_residual_connection_post_layernorm layer_norm_elementwise_affine softmax_scale attn_scale "
        "floor_scale attn_temperature_tuning output_multiplier qk_scale_factor clip_qkv low_precision_attention "
        "use_gemma_norm lm_head_multiplier key_multiplier attention_in_multiplier attention_out_multiplier "
        "ssm_in_multiplier ssm_out_multiplier ssm_multipliers mlp_multipliers use_bidirectional_attention "
        "attn_res_block_size"
    ),
    "positions": (
        "rope_theta rope_scaling rope_parameters rope_local_base_freq rope_interleave rope_ratio rope_traditional "
        "rotary_emb_base rotary_pct rotary_dim partial_rotary_factor swa_rope_theta compress_rope_theta "
        "layer_rope_theta original_max_position_embeddings original_rope alibi alibi_bias_max "
        "position_embedding_type max_position_embeddings mla_use_nope use_mrope initial_context_length "
        "no_rope_layer_interval indexer_rope_interleave use_nope nope_layer_interval"
    ),
    "dropout": (
        "attention_dropout hidden_dropout dropout attn_pdrop embd_pdrop resid_pdrop emb_pdrop residual_dropout "
        "embedding_dropout activation_dropout classifier_dropout layerdrop hidden_dropout_prob ffn_dropout"
    ),
    "routing": (
        "norm_topk_prob routed_scaling_factor scoring_func topk_method n_group topk_group moe_renormalize "
        "moe_router_activation_func num_expert_group use_grouped_topk router_scaling_factor "
        "moe_router_scaling_factor moe_routed_scaling_factor route_scale route_norm score_func "
        "router_jitter_noise input_jitter_noise moe_router_dtype router_bias_update num_hash_layers "
        "expert_selection_fn moe_norm_min moe_router_enable_expert_bias enable_moe_fp32_combine "
        "moe_shared_expert_overlap num_limited_groups score_function use_expert_bias moe_layer_end_index"
    ),
    "scans of recurrent layers": (
        "chunk_size mamba_chunk_size time_step_limit time_step_min time_step_max time_step_floor time_step_rank "
        "mamba_ssm_dtype mamba_ssm_cache_dtype kda_lower_bound kda_safe_gate linear_lower_bound gate_lower_bound "
        "linear_allow_neg_eigval linear_a_log_min linear_a_log_max linear_dt_min linear_dt_max "
        "linear_dt_init_floor"
    ),
    "said by others that count": (
        "gating use_attn_output_gate "
        "qk_head_dim num_key_value_heads head_dim global_attn_every_n_layers sliding_window_pattern "
        "interleave_moe_layer_step intermediate_size_mlp no_rope_layers first_k_dense_replace decoder_sparse_step "
        "mlp_only_layers moe_layer_freq full_attention_interval max_window_layers cache_implementation "
        "sliding_window_size attention_chunk_size sliding_window attention_window_size mlp_layer_types "
        "mtp_hybrid_override_pattern mtp_layers_block_type tie_word_embeddings layer_group_size full_attn_idxs "
        "index_topk_freq index_topk_pattern index_skip_topk_offset index_share_for_mtp_iteration use_mtp "
        "mtp_transformer_layers mtp_use_dedicated_embeddings num_layers n_ctx shape_rules "
        "prefix_dense_sliding_window_pattern activation_situ_beta activation_situ_linear_beta attn_type_list "
        "attn_output_gate attention_output_gate use_routing_bias use_moe_router_bias moe_router_bias "
        "enable_moe_block attention_bias qkv_bias use_qkv_bias mlp_bias use_bias bias use_qk_norm qk_norm_type "
        "qk_layernorm vocab_size_per_layer_input add_swa_attention_sink_bias add_full_attention_sink_bias "
        "linear_attn_config sparse_attention_config attn_config ffn_config sparse_disable_index_value "
        "sparse_local_block sparse_init_block sparse_score_type use_sparse_attention latent_moe_use_norm norm_qk "
        "parallel_residual use_parallel_residual"
    ),
    "images in text": (
        "image_token_index video_token_index mm_tokens_per_image vision_soft_tokens_per_image image_seq_length "
        "video_placeholder image_placeholder ignore_index use_unified_vision_chunk spatial_merge_size "
        "vision_feature_layer vision_feature_select_strategy multimodal_projector_bias projector_hidden_act "
        "vision_start_token mm_vision_tower mm_projector_type downsample_ratio select_layer dynamic_image_size "
        "max_dynamic_patch min_dynamic_patch use_thumbnail force_image_size template ps_version mrope_section "
        "media_placeholder boi_token_index eoi_token_index eoa_token_index scale_factor projector_hidden_size "
        "merged_hidden_size projection_dim"
    ),
}
_WORDS = frozenset(word for words in IGNORED.values() for word in words.split())
_ENDINGS = ("_token_id", "_token_ids", "_id")


def is_ignored(field: str) -> bool:
    return field in _WORDS or field.endswith(_ENDINGS) or field.startswith("_")
