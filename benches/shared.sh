#!/usr/bin/env bash
# A teammate's warm start from a directory and from S3 on this machine, beside
# `rclone copy` and `dvc pull` of the same bytes, in turn. usage: benches/shared.sh ROUNDS
#   MOTO  a Python venv with `pip install 'moto[server]'`
#   DVC   a Python venv with `pip install 'dvc[s3]'`
# rclone comes from the distribution. What is not there is skipped, loudly.
# At the end: what a run with nothing to do asks of a server (needs MOTO and target/release/runner).
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
room=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$room"' EXIT
# rclone reads no bundle of certificates for a server without TLS.
unset AWS_CA_BUNDLE
export AWS_ACCESS_KEY_ID=test-key AWS_SECRET_ACCESS_KEY=test-secret AWS_REGION=us-east-1
export AWS_DEFAULT_REGION=us-east-1 AWS_ENDPOINT_URL=http://127.0.0.1:18300 AWS_ALLOW_HTTP=true
bench() { cargo bench -q --bench shared -- "$@"; }
timed() { # NAME COMMAND…
    local name=$1 begin end
    shift
    begin=$(date +%s.%N)
    "$@" >"$room/log" 2>&1 || { cat "$room/log"; exit 1; }
    end=$(date +%s.%N)
    awk -v n="$name" -v s="$(echo "$end - $begin" | bc)" -v b="$bytes" \
        'BEGIN { printf "%s: %.2f s, %.0f MB/s\n", n, s, b / 1e6 / s }'
}
urls=("$room/shared")
if [ -x "${MOTO:-}/bin/moto_server" ]; then
    "$MOTO/bin/moto_server" -H 127.0.0.1 -p 18300 >"$room/moto.log" 2>&1 &
    until curl -s -o /dev/null http://127.0.0.1:18300; do sleep 0.2; done
    curl -s -X PUT http://127.0.0.1:18300/bench >/dev/null
    urls+=("s3://bench/cache")
else
    echo "skipped: S3; set MOTO to a venv that has moto" >&2
fi
mkdir "$room/ours"
for url in "${urls[@]}"; do
    echo "== $url"
    rm -rf "$room/ours/ana"
    bench put "$url" "$room/ours"
    # The peers' data: the files of the same objects and packs.
    rm -rf "$room/plain"
    mkdir "$room/plain"
    find "$room/ours/ana/objects" "$room/ours/ana/items" -type f -exec cp -t "$room/plain" {} +
    bytes=$(du -sb "$room/plain" | cut -f1)
    if [ "$url" = "$room/shared" ]; then
        remote="$room/peer"
        source="$remote"
    else
        remote=":s3,provider=Other,env_auth=true,endpoint='$AWS_ENDPOINT_URL':bench/peer"
        source="$remote"
    fi
    if command -v rclone >/dev/null; then rclone copy -q "$room/plain" "$remote"; fi
    if [ -x "${DVC:-}/bin/dvc" ]; then
        rm -rf "$room/dvc"
        mkdir "$room/dvc"
        cp -r "$room/plain" "$room/dvc/data"
        (
            cd "$room/dvc"
            "$DVC/bin/dvc" init -q --no-scm
            if [ "$url" = "$room/shared" ]; then
                "$DVC/bin/dvc" remote add -q -d team "$room/dvc-remote"
            else
                "$DVC/bin/dvc" remote add -q -d team s3://bench/dvc
                "$DVC/bin/dvc" remote modify -q team endpointurl "$AWS_ENDPOINT_URL"
            fi
            "$DVC/bin/dvc" add -q data
            "$DVC/bin/dvc" push -q
        )
    fi
    for _ in $(seq "$rounds"); do
        bench get "$url" "$room/ours"
        if command -v rclone >/dev/null; then
            rm -rf "$room/got"
            timed "rclone copy" rclone copy -q --transfers 16 "$source" "$room/got"
        fi
        if [ -x "${DVC:-}/bin/dvc" ]; then
            rm -rf "$room/dvc/.dvc/cache" "$room/dvc/data"
            timed "dvc pull" env -C "$room/dvc" "$DVC/bin/dvc" pull -q
        fi
    done
done

if [ -x "${MOTO:-}/bin/moto_server" ]; then
    nodes=1000
    echo "== $nodes nodes with s3://bench/noop behind them"
    runner=$PWD/target/release/runner
    mkdir "$room/project"
    cd "$room/project"
    export RUNNER_CONFIG=$room/config RUNNER_STATE=$room/state
    printf '[[remote]]\nname = "team"\nurl = "s3://bench/noop"\n' >runner.toml
    {
        printf 'version = 1\nname = "noop"\n'
        for i in $(seq "$nodes"); do
            printf '[nodes.n%d]\nkind = "probe"\nvalue = "%d"\n' "$i" "$i"
        done
    } >p.toml
    "$runner" key new --name ana >/dev/null
    run() { # NAME
        local name=$1 begin end asked
        asked=$(grep -c 'HTTP/1.1"' "$room/moto.log") || true
        begin=$(date +%s.%N)
        "$runner" exec p.toml --quiet >/dev/null
        end=$(date +%s.%N)
        asked=$(($(grep -c 'HTTP/1.1"' "$room/moto.log") - asked))
        printf '%s: %.3f s, %d requests\n' "$name" "$(echo "$end - $begin" | bc)" "$asked"
    }
    run "first run, with upload"
    run "nothing to do"
    echo "# a comment" >>p.toml
    run "nothing to do, every node looked up"
    rm -rf cache
    run "an empty cache, all from the server"
fi
