#!/bin/bash
# Makes this machine a LabLink VM: installs the agent and keeps it running, at this boot and at every later one.
#
# cloud-init runs this once, as root. All it does then is to keep itself and have systemd run the copy (`boot.sh run`)
# at every boot and after every failure. That copy installs the agent if it is not there yet, and becomes it. All that
# can take long or fail in interesting ways (image, repository, startup script) is the agent's work: it can report, be
# stopped, and try again. What fails before the agent lives is reported from here.
set -euo pipefail
umask 077

# Filled in by the server. The token works once; nothing else here is secret.
server_url=''
hostname=''
enrolment_token=''
wheel=''
wheel_sha256=''
requirements_sha256=''
image=''
spot=''

root=/opt/lablink
unit=/etc/systemd/system/lablink-agent.service
agent=$root/agent-${wheel_sha256:0:16}
last_lines=40

main() {
    case ${1:-keep} in
        keep) step "service" keep ;;
        run)
            if ! is_installed; then
                step "python" find_python
                step "agent" install_agent
            fi
            become_agent
            ;;
        *) echo "usage: $0 [keep|run]" >&2; exit 2 ;;
    esac
}

# Copies this script to where it stays, and has systemd run it from now on.
keep() {
    mkdir -p "$root/home"
    chmod 700 "$root"
    [[ $0 -ef $root/boot.sh ]] || install -m 700 -- "$0" "$root/boot.sh"
    printf '%s\n' "$enrolment_token" >"$root/enrolment.token"
    # Status 0 is an agent that was told to end; any other comes again (75: it asks to). What a startup script left
    # running is not the agent's to end with itself.
    cat >"$unit" <<UNIT
[Unit]
Description=LabLink agent
Wants=network-online.target
After=network-online.target docker.service
StartLimitIntervalSec=0

[Service]
ExecStart=$root/boot.sh run
Restart=on-failure
RestartSec=10
KillMode=process

[Install]
WantedBy=multi-user.target
UNIT
    chmod 644 "$unit"
    systemctl daemon-reload
    systemctl enable lablink-agent.service
    # Not waited for: cloud-init, whose child this is, comes before much else.
    systemctl --no-block restart lablink-agent.service
}

# At a later boot as well: an upgrade of the system may have taken the agent's Python away.
is_installed() {
    [[ -e $agent/complete ]] && "$agent/venv/bin/python" -c 'import agent, requests, psutil, websockets' 2>/dev/null
}

# The agent needs Python 3.11 or later, with venv. Debian and Ubuntu package venv apart.
find_python() {
    if ! python_of_machine; then
        if command -v apt-get; then
            apt-get update -qq
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv
        elif command -v dnf; then
            dnf install -y -q python3.11
        fi
        python_of_machine || fail "no Python 3.11 or later with venv is here, and the package manager brought none"
    fi
}

python_of_machine() {
    local each
    for each in python3.14 python3.13 python3.12 python3.11 python3; do
        if "$each" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$each"
            return
        fi
    done
    return 1
}

# Into a directory of its own, which counts once it is complete: this may end at any point and come again.
install_agent() {
    local python new=$agent/new
    python=$(python_of_machine)
    rm -rf "$agent"
    mkdir -p "$new"
    fetch "$wheel" "$wheel_sha256" "$new"
    fetch requirements.txt "$requirements_sha256" "$new"
    if PYTHONPATH="$new/$wheel" "$python" -P -m agent.bundled_pip "$new/pip"; then
        "$python" -m venv --without-pip "$agent/venv"
    else
        "$python" -m venv "$agent/venv"
    fi
    local pip=(env PYTHONPATH="$new/pip" "$agent/venv/bin/python" -m pip
        --disable-pip-version-check --no-input install --quiet --no-deps)
    "${pip[@]}" --require-hashes --only-binary :all: -r "$new/requirements.txt"
    "${pip[@]}" --no-index "$new/$wheel"
    rm -rf "$new"
    touch "$agent/complete"
}

# fetch NAME SHA256 DIRECTORY
fetch() {
    # A proxy of the machine may hold an older file of the same name.
    curl --fail --silent --show-error --connect-timeout 10 --max-time 300 --output "$3/$1" \
        --header 'Cache-Control: no-cache' "$server_url/agent/$1"
    echo "$2  $3/$1" | sha256sum --check --quiet || fail "$1 is not the file that this machine was made for: \
the server has another version by now, or somebody changed it on its way. Destroy this machine and launch another."
}

become_agent() {
    export LABLINK_SERVER_URL=$server_url LABLINK_HOSTNAME=$hostname LABLINK_AGENT_HOME=$root/home
    export LABLINK_IMAGE=$image LABLINK_REBOOT_COMMAND='systemctl reboot' LABLINK_LOG_FORMAT=json
    export LABLINK_BOOT_FILES=/run/cloud-init/status.json:/var/log/cloud-init-output.log
    # Where EC2 tells a machine about itself: to look there for the end of this one.
    [[ -z $spot ]] || export LABLINK_SPOT_METADATA_URL=http://169.254.169.254
    exec "$agent/venv/bin/python" -m agent --enrolment-token-file "$root/enrolment.token" --prepare-as-server-says
}

fail() {
    echo "$*" >&2
    exit 1
}

# step NAME COMMAND: runs the command, and tells the server how long it took and, if it failed, its last lines.
step() {
    local name=$1 log began status
    log=$(mktemp)
    began=$(date +%s%3N)
    # In a shell of its own and under no condition: only so does `set -e` hold within.
    set +e
    (set -e; "$2") >"$log" 2>&1
    status=$?
    set -e
    report "$name" "$status" $(($(date +%s%3N) - began)) "$log" || echo "lablink: the server was not told" >&2
    tail -n "$last_lines" "$log" >&2
    rm -f "$log"
    [[ $status -eq 0 ]] || { echo "lablink: step '$name' failed" >&2; exit 1; }
}

# report NAME STATUS MILLISECONDS LOG
report() {
    local token=$enrolment_token word=succeeded lines=''
    # The enrolment token is spent once the agent has beaten.
    [[ ! -s $root/home/agent.token ]] || token=$(<"$root/home/agent.token")
    [[ $2 -eq 0 ]] || { word=failed; lines=$(tail -n "$last_lines" "$4" | json_strings); }
    # The token stays off the command line, where everybody could read it.
    printf '{"step": "%s", "status": "%s", "duration_s": %d.%03d, "lines": [%s]}' \
        "$1" "$word" $(($3 / 1000)) $(($3 % 1000)) "$lines" |
        curl --fail --silent --show-error --connect-timeout 10 --max-time 30 --output /dev/null \
            --header @<(printf 'Authorization: Bearer %s\n' "$token") --header 'Content-Type: application/json' \
            --data-binary @- "$server_url/api/boot_steps"
}

# Lines of text as JSON strings with commas between. What is not plain ASCII is left out: half a character is no JSON.
json_strings() {
    LC_ALL=C tr -cd '\12\40-\176' | cut -c 1-1000 | sed -e 's/[\\"]/\\&/g' -e 's/.*/"&"/' | paste -s -d ,
}

main "$@"
