# syntax=docker/dockerfile:1

# docker build --build-arg VERSION=$(git describe --tags --always) -t fairlead .
# docker buildx build --platform linux/amd64,linux/arm64 ... compiles on the machine's own platform for each of them.

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH
ARG VERSION=dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/fairlead ./cmd/fairlead

# One static binary and the certificate authorities of the public internet: no shell, no package manager, nothing else to keep up to date.
FROM scratch
LABEL org.opencontainers.image.title="Fairlead" \
      org.opencontainers.image.description="An Ingress and Gateway API controller that explains itself" \
      org.opencontainers.image.source="https://github.com/fairlead-io/fairlead" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/fairlead /fairlead
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
ENTRYPOINT ["/fairlead"]
