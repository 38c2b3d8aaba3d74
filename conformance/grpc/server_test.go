package grpc

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

// backend answers calls of grpc.testing.TestService, health checks and reflection. A call has the metadata that it came with in the trailer of the answer, and its
// number of messages in the header.
type backend struct {
	pb.UnimplementedTestServiceServer
	ended chan error // of calls that were hung up on, why they ended
}

// startBackend returns the address of a backend.
func startBackend(t *testing.T) (*backend, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{ended: make(chan error, 16)}
	s := grpc.NewServer()
	pb.RegisterTestServiceServer(s, b)
	reflection.Register(s)
	h := health.NewServer()
	h.SetServingStatus("grpc.testing.TestService", healthpb.HealthCheckResponse_SERVING)
	h.SetServingStatus("broken", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(s, h)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return b, l.Addr().String()
}

// echoed is the trailer of an answer: what of the call's metadata tests look at.
func echoed(ctx context.Context) metadata.MD {
	in, _ := metadata.FromIncomingContext(ctx)
	out := metadata.MD{}
	for _, name := range []string{"x-test", "x-test-bin"} {
		if v := in.Get(name); v != nil {
			out["echo-"+name] = v
		}
	}
	return out
}

// UnaryCall answers with the payload of the request, with the status that it asks for, or when the caller has hung up.
func (b *backend) UnaryCall(ctx context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-header", "first"))
	_ = grpc.SetTrailer(ctx, echoed(ctx))
	if s := r.GetResponseStatus(); s != nil {
		return nil, status.Error(codes.Code(s.GetCode()), s.GetMessage())
	}
	if r.GetFillUsername() { // here: hang
		<-ctx.Done()
		b.ended <- ctx.Err()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return &pb.SimpleResponse{Payload: r.GetPayload()}, nil
}

// StreamingOutputCall sends a message for each that is asked for.
func (b *backend) StreamingOutputCall(r *pb.StreamingOutputCallRequest, s pb.TestService_StreamingOutputCallServer) error {
	s.SetTrailer(echoed(s.Context()))
	for _, p := range r.GetResponseParameters() {
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: &pb.Payload{Body: make([]byte, p.GetSize())}}); err != nil {
			return err
		}
	}
	return nil
}

// StreamingInputCall answers with how much it got.
func (b *backend) StreamingInputCall(s pb.TestService_StreamingInputCallServer) error {
	s.SetTrailer(echoed(s.Context()))
	sum := 0
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)})
		}
		if err != nil {
			return err
		}
		sum += len(r.GetPayload().GetBody())
	}
}

// FullDuplexCall answers each message before the next comes.
func (b *backend) FullDuplexCall(s pb.TestService_FullDuplexCallServer) error {
	s.SetTrailer(echoed(s.Context()))
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return status.Error(codes.DataLoss, "the end, with a status")
		}
		if err != nil {
			b.ended <- s.Context().Err()
			return err
		}
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: r.GetPayload()}); err != nil {
			return err
		}
	}
}
