# docker build -t tidegate .                                                     for CPUs
# docker build -t tidegate --build-arg TORCH_INDEX=https://pypi.org/simple .     with CUDA (several GB larger)

FROM python:3.12-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/tidegate
ENV PATH=/opt/tidegate/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src

# torch first and from its own index: it is the largest part and changes least.
COPY constraints.txt ./
RUN pip install --index-url "$TORCH_INDEX" --constraint constraints.txt torch

COPY pyproject.toml README.md LICENSE ./
COPY policies policies
COPY local_backend local_backend
COPY gateway gateway
RUN pip install --constraint constraints.txt '.[local]'


FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home --home-dir /data tidegate
COPY --from=build /opt/tidegate /opt/tidegate

# Everything that is kept lies in /data: the database, and the bundled model once it is downloaded and converted.
ENV PATH=/opt/tidegate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TIDEGATE_CACHE=/data/cache
USER tidegate
WORKDIR /data
VOLUME /data
EXPOSE 8080

# Alive, not ready: a gateway that waits for its model must not be restarted for it. /readyz tells the rest.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]

ENTRYPOINT ["tidegate"]
CMD ["serve", "--host", "0.0.0.0"]
