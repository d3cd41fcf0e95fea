# The image of all steps with Apache Beam: for a step that submits work to it, and for its workers on Dataflow.
# Its tag is that of the image with `-beam` behind. Build it with `make image BEAM=1`.
ARG IMAGE
FROM apache/beam_python3.11_sdk:2.77.0 AS sdk
FROM ${IMAGE}
USER 0
COPY containers/requirements-beam.lock /tmp/requirements-beam.lock
RUN --mount=type=secret,id=pip,target=/etc/pip.conf,required=false \
    pip install --quiet --no-cache-dir --require-hashes -r /tmp/requirements-beam.lock && rm /tmp/requirements-beam.lock
COPY --from=sdk /opt/apache/beam /opt/apache/beam
# Its workers run in the environment of the image, not in one that is made when they start. They are begun as root, since
# Dataflow gives them folders that belong to root.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
