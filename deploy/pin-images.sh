# Pulls the images of docker-compose.yml and the base image of the Dockerfile, and prints lines for
# .env with their current digests: a tag can later refer to another image, a digest cannot.
#
#   sh deploy/pin-images.sh >>.env
set -eu
pin() {
    docker pull --quiet "$2" >/dev/null
    repository="\(docker\.io/\)\?\(library/\)\?${2%%:*}"
    image=$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$2" |
        grep --max-count=1 "^$repository@sha256:[0-9a-f]\{64\}\$") ||
        { echo "$2 has no digest: it was not pulled from a registry." >&2; exit 1; }
    echo "$1=$image"
}
pin POSTGRES_IMAGE postgres:18
pin VALKEY_IMAGE valkey/valkey:9
pin PYTHON_IMAGE python:3.13-slim
