"""The token audit: submitted answers, held against what the organiser's copy of the model thinks of every token.

Prompts and submitted token ids come in, the model's margins and two checks go out. No answer is generated: one prefill.
"""
