#!/usr/bin/env bash
# Starts real servers on 127.0.0.1 and runs the tests of src/store/remote against them.
#
# usage: tests/remotes/servers.sh [COMMAND...]
#   COMMAND  what is run with the servers up (cargo test --lib store::remote -- --nocapture --test-threads 1)
#   MOTO     a Python venv with `pip install 'moto[server]'`         S3, conditions are real
#   S3S_FS   the program of `cargo install s3s-fs@0.14.1 --features binary`   S3, they race
#   AZURITE  the script `azurite-blob` of `npm install azurite`      Azure
#   nginx    with its module dav-ext (Debian: nginx-light libnginx-mod-http-dav-ext)   WebDAV
# A server that is not there is skipped, loudly. Ports: PORT (18100) and the four after it.
set -eu
port=${PORT:-18100}
room=$(mktemp -d)
pids=()
stop() {
    # nginx ends its workers if it is asked; some others wait for their connections.
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    sleep 0.5
    for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$room"
}
trap stop EXIT

# Waits until a port answers.
up() {
    for _ in $(seq 300); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        sleep 0.1
    done
    echo "nothing answers on port $1" >&2
    exit 1
}

if [ -x "${MOTO:-}/bin/moto_server" ]; then
    "$MOTO/bin/moto_server" -H 127.0.0.1 -p "$port" >"$room/moto.log" 2>&1 &
    pids+=($!)
    up "$port"
    AWS_ACCESS_KEY_ID=test-key AWS_SECRET_ACCESS_KEY=test-secret "$MOTO/bin/python" - <<PY
import boto3
s3 = boto3.client("s3", endpoint_url="http://127.0.0.1:$port", region_name="us-east-1")
s3.create_bucket(Bucket="runner-test")
PY
    export RUNNER_TEST_S3="http://127.0.0.1:$port"
else
    echo "skipped: moto; set MOTO to a venv that has it" >&2
fi

if [ -x "${S3S_FS:-}" ]; then
    mkdir -p "$room/s3s/runner-test"
    "$S3S_FS" --host 127.0.0.1 --port $((port + 1)) --access-key test-key \
        --secret-key test-secret "$room/s3s" >"$room/s3s.log" 2>&1 &
    pids+=($!)
    up $((port + 1))
    export RUNNER_TEST_S3_RACY="http://127.0.0.1:$((port + 1))"
else
    echo "skipped: s3s-fs; set S3S_FS to the program" >&2
fi

dav=$(ls /usr/lib/nginx/modules/ngx_http_dav_ext_module.so 2>/dev/null || true)
if command -v nginx >/dev/null && [ -n "$dav" ]; then
    mkdir -p "$room/nginx/logs" "$room/files/dav"
    cat >"$room/nginx.conf" <<CONF
load_module $dav;
worker_processes 2;
error_log $room/nginx.log;
pid $room/nginx.pid;
daemon off;
events { worker_connections 256; }
http {
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path $room/files/.body;
    proxy_temp_path $room/nginx/proxy;
    fastcgi_temp_path $room/nginx/fastcgi;
    uwsgi_temp_path $room/nginx/uwsgi;
    scgi_temp_path $room/nginx/scgi;
    client_max_body_size 0;
    server {
        listen 127.0.0.1:$((port + 2));
        location /dav/ {
            root $room/files;
            dav_methods PUT DELETE MKCOL COPY MOVE;
            dav_ext_methods PROPFIND OPTIONS;
        }
        location /plain/ { alias $room/files/dav/; }
    }
}
CONF
    # Not as root: its own workers would not get into the room.
    [ "$(id -u)" = 0 ] && sed -i '1i user root;' "$room/nginx.conf"
    nginx -p "$room/nginx" -e "$room/nginx.log" -c "$room/nginx.conf" &
    pids+=($!)
    up $((port + 2))
    export RUNNER_TEST_DAV="http://127.0.0.1:$((port + 2))/dav"
    export RUNNER_TEST_PLAIN="http://127.0.0.1:$((port + 2))/plain"
else
    echo "skipped: nginx with dav-ext" >&2
fi

if [ -x "${AZURITE:-}" ]; then
    AZURITE_ACCOUNTS="runner:dGVzdC1rZXk=" "$AZURITE" --silent --inMemoryPersistence \
        --skipApiVersionCheck --blobHost 127.0.0.1 --blobPort $((port + 3)) \
        >"$room/azurite.log" 2>&1 &
    pids+=($!)
    up $((port + 3))
    python3 - $((port + 3)) <<'PY'
# Makes the container: there is no tool for that in Debian.
import base64, email.utils, hashlib, hmac, sys, urllib.request
date, version = email.utils.formatdate(usegmt=True), "2021-12-02"
text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n"
text += "/runner/runner/runner-test\nrestype:container"
mac = hmac.new(b"test-key", text.encode(), hashlib.sha256).digest()
request = urllib.request.Request(
    f"http://127.0.0.1:{sys.argv[1]}/runner/runner-test?restype=container",
    method="PUT",
    headers={
        "x-ms-date": date,
        "x-ms-version": version,
        "Authorization": "SharedKey runner:" + base64.b64encode(mac).decode(),
    },
)
urllib.request.urlopen(request, timeout=10)
PY
    export RUNNER_TEST_AZURE="http://127.0.0.1:$((port + 3))/runner"
else
    echo "skipped: azurite; set AZURITE to its script" >&2
fi

if [ $# -eq 0 ]; then
    set -- cargo test --lib store::remote -- --nocapture --test-threads 1
fi
"$@"
