# An image with all that PCRL needs.
#   CPU:   docker build --build-arg TORCH=cpu -t pcrl .
#   CUDA:  docker build -t pcrl .                          (the default wheel of torch brings CUDA along)
#   run:   docker run --rm --gpus all --shm-size 8g -v /my/images:/data:ro -v /my/runs:/runs pcrl \
#              python main.py --data /data --n chest --train_list none --ratio 1.0 --output /runs/first --report
FROM python:3.12-slim

ARG TORCH=cuda
WORKDIR /pcrl
COPY requirements.txt .
RUN if [ "$TORCH" = cpu ]; then \
        pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu; \
    fi && \
    pip install --no-cache-dir -r requirements.txt
COPY . .

# Whoever runs it (docker run --user) needs a place for what is compiled once.
ENV NUMBA_CACHE_DIR=/tmp/numba MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1
CMD ["python", "main.py", "--help"]
