"""Texts and the tokens that OpenAI's own tiktoken 0.14 finds in them, by o200k_base and cl100k_base."""

ENGLISH = (
    "The gateway keeps a queue for each set of upstreams. Whoever waits longest isn't always served "
    "first: what counts is how much of the model's time each customer has had so far."
)
GERMAN = (
    "Das Gateway führt für jede Gruppe von Anbietern eine Warteschlange. Wer am längsten wartet, kommt "
    "nicht immer zuerst an die Reihe."
)
CHINESE = (
    "网关为每一组上游服务维护一个队列。等待时间最长的请求不一定最先得到处理，"  # noqa: RUF001 - Chinese
    "关键在于每个客户到目前为止占用了多少模型时间。"
)
CODE = """\
async def drain(queue: FairQueue, seats: Seats) -> None:
    while queue.waiting and seats.free(now) > 0:
        ticket = queue.next(now, seats.limit(now), first_token=0.25)
        if ticket is None:
            break
"""
JSON = (
    '{"id": "chatcmpl-9f2c", "object": "chat.completion", "created": 1763850000, '
    '"usage": {"prompt_tokens": 412, "completion_tokens": 87, "total_tokens": 499}}'
)
EMOJI = "Deploy is done 🚀🎉 — thanks, team! ❤️"

LABELLED = {
    "English": (ENGLISH, 37, 38),
    "German": (GERMAN, 28, 38),
    "Chinese": (CHINESE, 42, 56),
    "code": (CODE, 56, 56),
    "JSON": (JSON, 54, 54),
    "emoji": (EMOJI, 13, 16),
}
