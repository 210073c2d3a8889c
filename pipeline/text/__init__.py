"""Text on its way into and out of the engine: chat template, answer candidates, detokenising, arguments of pipe().

In: chats and the arguments of a call. Out: token ids, drafts' candidates, pipe()'s output form.
Imports of ours only `errors` and `files`; `text_generation` and `dataset/` call it.
"""
