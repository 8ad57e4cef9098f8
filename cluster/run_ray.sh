#!/usr/bin/env bash
# cluster/run_ray.sh COMMAND...  runs COMMAND as a Ray job on this SkyPilot cluster; every node calls it:
#     run: cluster/run_ray.sh python -m apps.train run --preset vicuna-7b ...
# Starts (or joins) our own Ray beside SkyPilot's, watches for the spot notice, and submits the job once, from the head.
# May be called any number of times, one after another: a machine that is in our Ray stays in it.
# Exit code: 0 done; 2 bad input or settings (another machine would not help); 75 a machine was lost (SkyPilot recovers it
# elsewhere); 143 cancelled; 1 it failed otherwise, also when tried again here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "$#" = 0 ]; then
    echo "usage: cluster/run_ray.sh COMMAND..., for example: cluster/run_ray.sh python -m apps.data clean --help" >&2
    exit 2
fi
source .venv/bin/activate

# One token opens every node's Ray and nothing listens beyond the cluster; the dashboard stays on the loopback address:
#     ssh -L 8265:localhost:8265 <cluster name>
if [ -z "${RAY_AUTH_TOKEN:-}" ]; then
    if [ "${SKYPILOT_NUM_NODES:-1}" -gt 1 ]; then
        echo 'Several nodes must share one token: launch with --secret RAY_AUTH_TOKEN=$(openssl rand -hex 32)' >&2
        exit 2
    fi
    token=$HOME/.cria-ray-token
    # One at a time: two commands that begin together must not make two tokens.
    (umask 077 && exec 9>"$token.lock" && flock 9 && { [ -s "$token" ] || python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$token"; })
    RAY_AUTH_TOKEN=$(<"$token")
fi
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
export RAY_HEAD_PORT=${RAY_HEAD_PORT:-6379} RAY_DASHBOARD_PORT=${RAY_DASHBOARD_PORT:-8265}
python -m cluster.start_ray

# Detached, because SkyPilot ends a node's children when its command ends, and a worker's command ends here. One per node.
notice=$HOME/.cria-spot-notice
(setsid nohup flock -n "$notice.lock" python cluster/spot_watch.py --gcs-port "$RAY_HEAD_PORT" --notice-file "$notice" \
    >>"$HOME/cria-spot-watch.log" 2>&1 </dev/null &)

[ "${SKYPILOT_NODE_RANK:-0}" = 0 ] || exit 0
exec python -m cluster.submit_job --notice-file "$notice" -- "$@"
