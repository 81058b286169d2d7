# One image for every part; the command says which part it is.
FROM python:3.11-slim

WORKDIR /opt/warmrack
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY store store
COPY daemon daemon
COPY workers workers
RUN python -m pip install --no-cache-dir -c constraints.txt '.[worker,postgres]' \
    && useradd --uid 1000 --home-dir /var/lib/warmrack warmrack \
    && install --directory --owner warmrack /var/lib/warmrack /var/lib/warmrack/hub

USER warmrack
ENV WARMRACK_STATE_DIR=/var/lib/warmrack \
    WARMRACK_CACHE_DIR=/var/lib/warmrack/hub \
    WARMRACK_LOG=json
ENTRYPOINT ["warmrack"]
