# hen_jax for CPUs. From the root of a checkout:
#
#   docker build -f launch/docker/cpu.Dockerfile -t IMAGE .
FROM python:3.12-slim

# hen is process 1 and gets SIGTERM itself; its output is seen as it is written.
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1

WORKDIR /opt/hen_jax
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY configs configs
COPY hen_jax hen_jax
RUN pip install --constraint constraints.txt .

# Not in the sources, so that the installed package is the one that runs.
WORKDIR /work
ENTRYPOINT ["hen"]
CMD ["doctor"]
