"""`r1distill serve`: the teacher at a URL, for `generate` with `backend = "server"`.

Nothing here serves: it is vLLM's own server, vLLM's Ray executor (one model over several nodes) or Ray Serve LLM
(several copies) that does. What is ours are their settings, which are those of vllm_engine.py, and the end of it all.
"""
