"""Training: TRL's SFTTrainer on ids that we render ourselves. Needs the extra `train`."""
