package grpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

// eachWay runs a test over clear text and over TLS.
func eachWay(t *testing.T, host string, test func(t *testing.T, ctx context.Context, c *grpc.ClientConn)) {
	f := startFairlead(t)
	for name, secure := range map[string]bool{"clear text": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			test(t, ctx, f.dial(t, host, secure))
		})
	}
}

// sent is the metadata of a call, and wantEchoed looks for it in the trailer. What is binary is encoded on the way.
var sent = metadata.Pairs("x-test", "one", "x-test", "two", "x-test-bin", "\x00\xff\x01")

func wantEchoed(t *testing.T, trailer metadata.MD) {
	t.Helper()
	if got := trailer.Get("echo-x-test"); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("the trailer has x-test %q", got)
	}
	if got := trailer.Get("echo-x-test-bin"); !slices.Equal(got, []string{"\x00\xff\x01"}) {
		t.Errorf("the trailer has x-test-bin %q", got)
	}
}

func TestUnary(t *testing.T) {
	eachWay(t, "grpc.test", func(t *testing.T, ctx context.Context, c *grpc.ClientConn) {
		client := pb.NewTestServiceClient(c)
		for _, size := range []int{0, 1, 100_000, 3 << 20} {
			var header, trailer metadata.MD
			body := bytes.Repeat([]byte("x"), size)
			out, err := client.UnaryCall(metadata.NewOutgoingContext(ctx, sent), &pb.SimpleRequest{Payload: &pb.Payload{Body: body}}, grpc.Header(&header), grpc.Trailer(&trailer))
			if err != nil || !bytes.Equal(out.GetPayload().GetBody(), body) {
				t.Errorf("%d bytes: got %d, %v", size, len(out.GetPayload().GetBody()), err)
			}
			if got := header.Get("x-header"); !slices.Equal(got, []string{"first"}) {
				t.Errorf("the header has x-header %q", got)
			}
			wantEchoed(t, trailer)
		}
		// The status of a call is the backend's, message and all.
		for _, code := range []codes.Code{codes.InvalidArgument, codes.NotFound, codes.Unavailable, codes.DeadlineExceeded, codes.Unauthenticated} {
			var trailer metadata.MD
			const message = "für 100 % – \n and more"
			_, err := client.UnaryCall(metadata.NewOutgoingContext(ctx, sent), &pb.SimpleRequest{ResponseStatus: &pb.EchoStatus{Code: int32(code), Message: message}}, grpc.Trailer(&trailer))
			if s := status.Convert(err); s.Code() != code || s.Message() != message {
				t.Errorf("%s: got %s %q", code, s.Code(), s.Message())
			}
			wantEchoed(t, trailer)
		}
	})
}

func TestStreams(t *testing.T) {
	eachWay(t, "grpc.test", func(t *testing.T, ctx context.Context, c *grpc.ClientConn) {
		client := pb.NewTestServiceClient(c)
		ctx = metadata.NewOutgoingContext(ctx, sent)

		request := &pb.StreamingOutputCallRequest{}
		sizes := []int32{1, 0, 70_000, 1 << 20, 5}
		for _, n := range sizes {
			request.ResponseParameters = append(request.ResponseParameters, &pb.ResponseParameters{Size: n})
		}
		down, err := client.StreamingOutputCall(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range sizes {
			m, err := down.Recv()
			if err != nil || len(m.GetPayload().GetBody()) != int(n) {
				t.Fatalf("message %d of the server: got %d bytes, %v, want %d", i, len(m.GetPayload().GetBody()), err, n)
			}
		}
		if _, err := down.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("at the end: %v", err)
		}
		wantEchoed(t, down.Trailer())

		up, err := client.StreamingInputCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			if err := up.Send(&pb.StreamingInputCallRequest{Payload: &pb.Payload{Body: make([]byte, 40_000)}}); err != nil {
				t.Fatal(err)
			}
		}
		if sum, err := up.CloseAndRecv(); err != nil || sum.GetAggregatedPayloadSize() != 50*40_000 {
			t.Errorf("the server got %d bytes, %v", sum.GetAggregatedPayloadSize(), err)
		}
		wantEchoed(t, up.Trailer())
	})
}

// Each side waits for the other, so that nothing may be held back; and the client's end leaves the server's open.
func TestBothWaysAtOnce(t *testing.T) {
	eachWay(t, "grpc.test", func(t *testing.T, ctx context.Context, c *grpc.ClientConn) {
		s, err := pb.NewTestServiceClient(c).FullDuplexCall(metadata.NewOutgoingContext(ctx, sent))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			if err := s.Send(&pb.StreamingOutputCallRequest{Payload: &pb.Payload{Body: make([]byte, i)}}); err != nil {
				t.Fatal(err)
			}
			if m, err := s.Recv(); err != nil || len(m.GetPayload().GetBody()) != i {
				t.Fatalf("message %d: got %d bytes, %v", i, len(m.GetPayload().GetBody()), err)
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); status.Code(err) != codes.DataLoss || status.Convert(err).Message() != "the end, with a status" {
			t.Errorf("at the end: %v", err)
		}
		wantEchoed(t, s.Trailer())
	})
}

func TestReflectionAndHealthPass(t *testing.T) {
	eachWay(t, "grpc.test", func(t *testing.T, ctx context.Context, c *grpc.ClientConn) {
		s, err := reflectionpb.NewServerReflectionClient(c).ServerReflectionInfo(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
			t.Fatal(err)
		}
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, service := range m.GetListServicesResponse().GetService() {
			names = append(names, service.GetName())
		}
		if !slices.Contains(names, "grpc.testing.TestService") {
			t.Errorf("reflection lists %q", names)
		}

		health := healthpb.NewHealthClient(c)
		for service, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
			"": healthpb.HealthCheckResponse_SERVING, "grpc.testing.TestService": healthpb.HealthCheckResponse_SERVING, "broken": healthpb.HealthCheckResponse_NOT_SERVING,
		} {
			if got, err := health.Check(ctx, &healthpb.HealthCheckRequest{Service: service}); err != nil || got.GetStatus() != want {
				t.Errorf("health of %q: %v, %v, want %v", service, got.GetStatus(), err, want)
			}
		}
		if _, err := health.Check(ctx, &healthpb.HealthCheckRequest{Service: "unknown"}); status.Code(err) != codes.NotFound {
			t.Errorf("health of what is unknown: %v", err)
		}
	})
}

// wantOwn expects a status that Fairlead gave itself, with its reason.
func wantOwn(t *testing.T, err error, header, trailer metadata.MD, code codes.Code, reason string) {
	t.Helper()
	got := append(header.Get("x-fairlead-reason"), trailer.Get("x-fairlead-reason")...)
	if status.Code(err) != code || !slices.Equal(got, []string{reason}) {
		t.Errorf("got %v with the reason %q, want %s with %s", err, got, code, reason)
	}
}

func TestWhatFairleadAnswersItself(t *testing.T) {
	eachWay(t, "grpc.test", func(t *testing.T, ctx context.Context, c *grpc.ClientConn) {
		var header, trailer metadata.MD
		own := []grpc.CallOption{grpc.Header(&header), grpc.Trailer(&trailer)}
		_, err := pb.NewLoadBalancerStatsServiceClient(c).GetClientStats(ctx, &pb.LoadBalancerStatsRequest{}, own...)
		wantOwn(t, err, header, trailer, codes.Unimplemented, "no-route")

		header, trailer = nil, nil
		_, err = pb.NewReconnectServiceClient(c).Stop(ctx, &pb.Empty{}, own...)
		wantOwn(t, err, header, trailer, codes.Unavailable, "no-endpoints")

		// A method that the backend does not have is the backend's word.
		header, trailer = nil, nil
		_, err = pb.NewTestServiceClient(c).UnimplementedCall(ctx, &pb.Empty{}, own...)
		if got := append(header.Get("x-fairlead-reason"), trailer.Get("x-fairlead-reason")...); status.Code(err) != codes.Unimplemented || got != nil {
			t.Errorf("an unknown method: %v, with the reason %q", err, got)
		}
	})
}

func TestTimeoutOfTheRoute(t *testing.T) {
	eachWay(t, "slow.test", func(t *testing.T, ctx context.Context, c *grpc.ClientConn) {
		var header, trailer metadata.MD
		_, err := pb.NewTestServiceClient(c).UnaryCall(ctx, &pb.SimpleRequest{FillUsername: true}, grpc.Header(&header), grpc.Trailer(&trailer))
		wantOwn(t, err, header, trailer, codes.DeadlineExceeded, "request-timeout")
	})
}

// A client that hangs up, or whose deadline is over, ends the call at the backend, which is told of the deadline.
func TestTheEndOfACallReachesTheBackend(t *testing.T) {
	f := startFairlead(t)
	for _, secure := range []bool{false, true} {
		client := pb.NewTestServiceClient(f.dial(t, "grpc.test", secure))
		for name, end := range map[string]func() (context.Context, context.CancelFunc){
			"deadline": func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(t.Context(), 200*time.Millisecond)
			},
			"hangs up": func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(200*time.Millisecond, cancel)
				return ctx, cancel
			},
		} {
			ctx, cancel := end()
			if _, err := client.UnaryCall(ctx, &pb.SimpleRequest{FillUsername: true}); err == nil {
				t.Errorf("%s: the call succeeded", name)
			}
			select {
			case err := <-f.ended:
				if name == "hangs up" && !errors.Is(err, context.Canceled) {
					t.Errorf("%s: the call ended at the backend with %v", name, err)
				}
			case <-time.After(20 * time.Second):
				t.Errorf("%s: the call goes on at the backend", name)
			}
			cancel()
		}
	}
}
