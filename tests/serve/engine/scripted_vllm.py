"""A stand-in for `python -m vllm.entrypoints.openai.api_server`: same HTTP surface, made-up tokens.

The next token is a function of the one before, so a test can tell what an answer must be. As with
vLLM 0.32, `token_ids` of the last event holds the end token, or not when LEAVE_OUT_END is set.
"""

import argparse
import asyncio
import json
import os

from aiohttp import web

EOS = 1
SERVED = web.AppKey("served", list)
STATE = web.AppKey("state", dict)


def next_token(token: int) -> int:
    return (token * 7 + 3) % 512


def event(data: dict | list) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def authorized(request: web.Request) -> bool:
    return request.headers.get("Authorization") == f"Bearer {os.environ['VLLM_API_KEY']}"


async def completions(request: web.Request) -> web.StreamResponse:
    if not authorized(request):
        return web.json_response({"error": {"message": "no key"}}, status=401)
    body = await request.json()
    if body["model"] != request.app[SERVED][-1]:
        return web.json_response({"error": {"message": "another model"}}, status=404)
    prompt, limit = body["prompt"], body["max_tokens"]
    assert body["stream"] and body["return_token_ids"] and not body["add_special_tokens"]
    if body["temperature"] == 0.123:
        return web.json_response({"error": {"message": "cannot do .123"}}, status=400)
    fails = body["temperature"] in (0.124, 0.125)
    request.app[STATE]["dead"] = body["temperature"] == 0.125
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    token = prompt[-1]
    stops = set(body["stop_token_ids"]) | (set() if body["ignore_eos"] else {EOS})
    for i in range(limit):
        if fails and i == 3:
            await response.write(event({"error": {"message": "out of order", "code": 500}}))
            return response
        if body["temperature"] == 0.126:
            await response.write(event([]))
        if token == 500:
            os._exit(3)
        token = next_token(token)
        stopped = token in stops
        choice = {"index": 0, "text": "", "token_ids": [token], "finish_reason": None}
        if body.get("logprobs") is not None:
            name = f"token_id:{token}"
            names, values = [name], [-0.5]
            if body.get("echo") and i == 0:
                names = [*(f"token_id:{p}" for p in prompt), *names]
                values = [None, *(-p / 8 for p in prompt[1:]), *values]
            tops = [
                {n: v, "token_id:9": -99.0} if v else None
                for n, v in zip(names, values, strict=True)
            ]
            choice["logprobs"] = {"tokens": names, "token_logprobs": values, "top_logprobs": tops}
        if stopped or i == limit - 1:
            choice["finish_reason"] = "stop" if stopped else "length"
            choice["stop_reason"] = token if stopped and token != EOS else None
            if stopped and os.environ.get("LEAVE_OUT_END"):
                choice["token_ids"] = []
        await response.write(event({"choices": [choice]}))
        await asyncio.sleep(0.002)
        if choice["finish_reason"]:
            break
    await response.write(event({"choices": [], "usage": {}}) + b"data: [DONE]\n\n")
    return response


async def models(request: web.Request) -> web.Response:
    if not authorized(request):
        return web.json_response({}, status=401)
    adapters = [{"id": name, "max_model_len": None} for name in request.app[SERVED][1:]]
    return web.json_response({"data": [{"id": "scripted", "max_model_len": 256}, *adapters]})


async def health(request: web.Request) -> web.Response:
    return web.Response(status=503 if request.app[STATE]["dead"] else 200)


async def metrics(_: web.Request) -> web.Response:
    return web.Response(
        text='# HELP x\nvllm:num_requests_running{engine="0"} 2.0\n'
        'vllm:generation_tokens_total{engine="0"} 40\nvllm:generation_tokens_total{engine="1"} 2\n'
        'vllm:kv_cache_usage_perc{engine="0"} 0.75\nvllm:kv_cache_usage_perc{engine="1"} 0.25\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--model", "--host", "--max-num-seqs", "--max-model-len"):
        parser.add_argument(name)
    parser.add_argument("--port", type=int)
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--lora-modules", nargs="+", default=[])
    args = parser.parse_args()
    if args.model.endswith("broken"):
        raise SystemExit("cannot load this model")
    app = web.Application()
    app[STATE] = {"dead": False}
    app[SERVED] = ["scripted", *(module.split("=")[0] for module in args.lora_modules)]
    app.router.add_post("/v1/completions", completions)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/health", health)
    app.router.add_get("/metrics", metrics)
    web.run_app(app, host=args.host, port=args.port, print=None)


if __name__ == "__main__":
    main()
