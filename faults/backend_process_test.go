package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// backendConfig is what a backend's process is started with.
type backendConfig struct {
	Servers []serverConfig // one process may be several endpoints

	// Age is how long connections live before they are told by GOAWAY to go; zero is
	// for ever.
	Age time.Duration
}

type serverConfig struct{ Name, Address string }

// behaviour is how a backend answers, until it is told otherwise.
type behaviour struct {
	Delay      time.Duration // before each answer
	Code       codes.Code    // of each answer; OK answers well
	Hang       bool          // does not answer at all
	NotServing bool          // what its health service says
}

// order is what a test asks of a backend, a line of JSON each; it is answered by a
// report.
type order struct {
	Behave *behaviour
	Die    bool // kills its own process, once it has reported
}

// report is what a backend has seen so far.
type report struct {
	Begun int64 // RPCs that came, health checks left out
	Open  int64 // of those, not answered yet
	Most  int64 // of those, open at once
	Kinds int   // of servers, that is its endpoints
}

// backendProcess is the backend's side of the pipe.
type backendProcess struct {
	pb.UnimplementedTestServiceServer

	behave            atomic.Pointer[behaviour]
	begun, open, most atomic.Int64
	health            *health.Server
}

// playBackend is the main function of a backend. It ends with its standard input, and
// on SIGTERM as servers do: no new streams, and those that are open are answered.
func playBackend(text string) error {
	var config backendConfig
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return err
	}
	p := &backendProcess{health: health.NewServer()}
	p.behave.Store(&behaviour{})
	var servers []*grpc.Server
	var serving sync.WaitGroup
	for _, s := range config.Servers {
		l, err := net.Listen("tcp", s.Address)
		if err != nil {
			return err
		}
		server := grpc.NewServer(grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: config.Age}))
		pb.RegisterTestServiceServer(server, &namedServer{p, s.Name})
		healthpb.RegisterHealthServer(server, p.health)
		servers = append(servers, server)
		serving.Go(func() {
			if err := server.Serve(l); err != nil {
				fmt.Fprintln(os.Stderr, "serve:", err)
			}
		})
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	orders := make(chan error, 1)
	go func() { orders <- p.obey(os.Stdin, os.Stdout, len(servers)) }()
	select {
	case err := <-orders:
		return err // the test has gone, and nobody waits for answers
	case <-asked:
	}
	for _, server := range servers {
		serving.Go(server.GracefulStop)
	}
	serving.Wait()
	return nil
}

// obey takes orders until there are no more.
func (p *backendProcess) obey(in io.Reader, out io.Writer, servers int) error {
	orders, reports := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var o order
		if err := orders.Decode(&o); err != nil {
			return nil // the test has ended
		}
		if o.Behave != nil {
			p.become(*o.Behave)
		}
		r := report{Begun: p.begun.Load(), Open: p.open.Load(), Most: p.most.Load(), Kinds: servers}
		if err := reports.Encode(r); err != nil {
			return err
		}
		if o.Die {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
}

func (p *backendProcess) become(b behaviour) {
	p.behave.Store(&b)
	serving := healthpb.HealthCheckResponse_SERVING
	if b.NotServing {
		serving = healthpb.HealthCheckResponse_NOT_SERVING
	}
	p.health.SetServingStatus("", serving)
}

// namedServer is one endpoint of a process.
type namedServer struct {
	*backendProcess
	name string
}

// UnaryCall answers with what came and, after it, as many bytes as were asked for,
// which follow from what came.
func (s *namedServer) UnaryCall(ctx context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	defer s.count()()
	if err := s.comply(ctx); err != nil {
		return nil, err
	}
	return &pb.SimpleResponse{ServerId: s.name, Payload: &pb.Payload{Body: answerTo(r.GetPayload().GetBody(), int(r.GetResponseSize()))}}, nil
}

// FullDuplexCall says its name before and after each message that comes.
func (s *namedServer) FullDuplexCall(stream grpc.BidiStreamingServer[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse]) error {
	defer s.count()()
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.comply(stream.Context())
		}
		if err != nil {
			return err
		}
		body := append([]byte(s.name+" "), r.GetPayload().GetBody()...)
		if err := stream.Send(&pb.StreamingOutputCallResponse{Payload: &pb.Payload{Body: body}}); err != nil {
			return err
		}
	}
}

// count counts an RPC; the result is called when it is answered.
func (p *backendProcess) count() func() {
	p.begun.Add(1)
	open := p.open.Add(1)
	for most := p.most.Load(); open > most && !p.most.CompareAndSwap(most, open); {
		most = p.most.Load()
	}
	return func() { p.open.Add(-1) }
}

func (p *backendProcess) comply(ctx context.Context) error {
	b := p.behave.Load()
	if b.Hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if b.Delay > 0 {
		wait := time.NewTimer(b.Delay)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if b.Code != codes.OK {
		return status.Error(b.Code, "told to")
	}
	return nil
}

// answerTo is the nonce, and then size bytes that follow from it.
func answerTo(nonce []byte, size int) []byte {
	if size == 0 || len(nonce) == 0 {
		return nonce
	}
	return append(nonce[:len(nonce):len(nonce)], bytes.Repeat(nonce, size/len(nonce)+1)[:size]...)
}
