# An image with the packages and the code, for a user without root; docs/installing.md has the commands.
# TORCH=cpu needs TORCH_INDEX, an index of PyTorch's CPU wheels.
FROM python:3.11-slim-bookworm
ARG TORCH=cuda
ARG TORCH_INDEX=
RUN useradd --create-home --uid 1000 user
USER user
ENV VENV=/home/user/venv PATH=/home/user/venv/bin:$PATH
RUN mkdir /home/user/deepcluster
WORKDIR /home/user/deepcluster
# First what the packages depend on, so that a change of the code does not install them again
COPY --chown=user setup.sh requirements*.txt ./
COPY --chown=user recipes/env.sh recipes/install.sh recipes/
RUN PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 ./setup.sh
COPY --chown=user . .
CMD ["./main.sh"]
