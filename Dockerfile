# flows on a CPU, with the page: docker build -t flows . && docker run --rm -p 7860:7860 flows
FROM python:3.11-slim

# The CPU build of torch; the default one brings 5 GB of CUDA.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1

RUN useradd --create-home --uid 1000 flows
WORKDIR /home/flows/app

COPY pyproject.toml README.md LICENSE train.py ./
COPY flows flows
COPY configs configs
COPY checkpoints checkpoints
RUN pip install -e ".[studio]" && chown -R flows:flows .

USER 1000
EXPOSE 7860
ENTRYPOINT ["flows"]
CMD ["studio", "--host", "0.0.0.0", "--port", "7860"]
