#!/bin/sh
# The steps that the images share; each Dockerfile mounts this file where a step needs it.
#
#   install.sh tools LOCKS LOCK.txt           uv in /opt/tools, and the bill of materials of LOCK in /opt/tools/sbom.cdx.json
#   install.sh bill LOCK.txt FILE             the bill of materials of another LOCK, once there are tools
#   install.sh python                         Python with its headers and a C compiler, where the base has none
#   install.sh packages LOCK.txt [BUILD.txt]  /opt/venv, or VENV, with every package of LOCK, checked by hash
#   install.sh user                           the unprivileged user, and folders that any uid may write
set -eu

# A host behind a proxy that inspects TLS hands its certificates over as a build secret, which no layer keeps.
if [ -s /run/secrets/ca_bundle ]; then
  export SSL_CERT_FILE=/run/secrets/ca_bundle PIP_CERT=/run/secrets/ca_bundle
fi
export UV_SYSTEM_CERTS=true UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1 PIP_DISABLE_PIP_VERSION_CHECK=1

bill() {
  /opt/tools/bin/cyclonedx-py requirements --output-reproducible --output-format JSON --output-file "$2" "$1"
}

step=$1
shift
case $step in
  tools)
    python3 -m venv /opt/tools
    /opt/tools/bin/pip install --quiet --no-cache-dir --require-hashes -r "$1/bootstrap.txt"
    /opt/tools/bin/uv pip install --quiet --python /opt/tools/bin/python --require-hashes -r "$1/sbom.txt"
    bill "$1/$2" /opt/tools/sbom.cdx.json
    ;;
  bill)
    bill "$1" "$2"
    ;;
  python)
    if ! python3 -c 'import sys; raise SystemExit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then
      apt-get -q update
      # Triton and inductor compile their kernels on the machine they run on: headers and a compiler stay in the image.
      apt-get -qy install --no-install-recommends gcc libc6-dev python3.12 python3.12-dev python3.12-venv
      ln -sfn python3.12 /usr/bin/python3
      rm -rf /var/lib/apt/lists/*
    fi
    ;;
  packages)
    venv=${VENV:-/opt/venv} lock=$1 build=${2:-}
    /opt/tools/bin/uv venv --quiet --python "$(command -v python3)" "$venv"
    # deepspeed's kernels are compiled when they are first used, not here: its build needs no torch and no compiler.
    DS_BUILD_OPS=0 /opt/tools/bin/uv pip install --python "$venv/bin/python" --compile-bytecode --require-hashes \
      --find-links /wheels ${build:+--build-constraints "$build"} -r "$lock"
    ;;
  user)
    groupadd --gid 10001 r1mm
    useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin r1mm
    # A fresh named volume takes the mode of the folder it covers: these are for whichever uid the caller has.
    install -d -m 1777 /runs /cache/huggingface /cache/triton /cache/vllm /cache/inductor
    ;;
  *)
    echo "install.sh: no step $step" >&2
    exit 2
    ;;
esac
