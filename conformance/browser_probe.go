package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	probev1 "sluice/conformance/browser/probe/v1"
)

// probe is the backend of the browser's suite. It speaks gRPC only, and tells its
// descriptors by reflection.
type probe struct {
	probev1.UnimplementedProbeServer

	addr   string
	server *grpc.Server

	mu     sync.Mutex // guards events
	events map[string]chan struct{}
}

// probePatience is how long the backend waits for what a page is to do.
const probePatience = 5 * time.Second

func startProbe() (*probe, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &probe{addr: l.Addr().String(), server: grpc.NewServer(), events: map[string]chan struct{}{}}
	probev1.RegisterProbeServer(p.server, p)
	reflection.Register(p.server)
	go p.server.Serve(l)
	return p, nil
}

func (p *probe) stop() { p.server.Stop() }

// probeDescriptors are those of the service, and of the details of its errors.
func probeDescriptors() ([]byte, error) {
	var set descriptorpb.FileDescriptorSet
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
	}
	add(probev1.File_probe_v1_probe_proto)
	add(errdetails.File_google_rpc_error_details_proto)
	add(status.New(codes.OK, "").Proto().ProtoReflect().Descriptor().ParentFile())
	return proto.Marshal(&set)
}

// event is something that happens once: an RPC that was cancelled, a number that a page
// has seen.
func (p *probe) event(name string) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.events[name] == nil {
		p.events[name] = make(chan struct{})
	}
	return p.events[name]
}

func (p *probe) await(ctx context.Context, name string) error {
	select {
	case <-p.event(name):
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-time.After(probePatience):
		return status.Errorf(codes.DeadlineExceeded, "%s: not within %s", name, probePatience)
	}
}

// Ask answers. "gone NAME" waits until the RPC whose text is NAME has been given up,
// "seen NAME NUMBER" lets a stepwise Count go on.
func (p *probe) Ask(ctx context.Context, q *probev1.AskRequest) (*probev1.AskResponse, error) {
	grpc.SetTrailer(ctx, echoed(ctx, "x-echo-end"))
	if err := grpc.SetHeader(ctx, echoed(ctx, "x-echo")); err != nil {
		return nil, err
	}
	switch {
	case strings.HasPrefix(q.GetText(), "gone "):
		if err := p.await(ctx, q.GetText()); err != nil {
			return nil, err
		}
	case strings.HasPrefix(q.GetText(), "seen "):
		close(p.event(q.GetText()))
	}
	if err := p.end(ctx, q.GetText(), q.GetEnding()); err != nil {
		return nil, err
	}
	answer := &probev1.AskResponse{Text: q.GetText()}
	if size := int(q.GetSize()); size > 0 && q.GetText() != "" {
		answer.Text = strings.Repeat(q.GetText(), size/len(q.GetText())+1)[:size]
	}
	if deadline, ok := ctx.Deadline(); ok {
		answer.Remaining = uint64(time.Until(deadline).Milliseconds())
	}
	return answer, nil
}

// echoed is the metadata under a name, and under its binary form.
func echoed(ctx context.Context, name string) metadata.MD {
	md := metadata.MD{}
	for _, name := range []string{name, name + "-bin"} {
		if values := metadata.ValueFromIncomingContext(ctx, name); len(values) > 0 {
			md[name] = values
		}
	}
	return md
}

// end ends an RPC as it asked for.
func (p *probe) end(ctx context.Context, name string, e *probev1.Ending) error {
	if e.GetNever() {
		<-ctx.Done()
		close(p.event("gone " + name))
		return status.FromContextError(ctx.Err()).Err()
	}
	st := status.New(codes.Code(e.GetCode()), e.GetMessage())
	if e.GetReason() != "" {
		var err error
		if st, err = st.WithDetails(&errdetails.ErrorInfo{Reason: e.GetReason(), Domain: "probe"}); err != nil {
			return err
		}
	}
	return st.Err()
}

// Count sends numbers.
func (p *probe) Count(q *probev1.CountRequest, stream grpc.ServerStreamingServer[probev1.CountResponse]) error {
	ctx := stream.Context()
	stream.SetTrailer(echoed(ctx, "x-echo-end"))
	if err := stream.SetHeader(echoed(ctx, "x-echo")); err != nil {
		return err
	}
	for n := range q.GetNumbers() {
		if err := stream.Send(&probev1.CountResponse{Number: n + 1, Text: q.GetText()}); err != nil {
			return err
		}
		if q.GetStepwise() {
			if err := p.await(ctx, fmt.Sprintf("seen %s %d", q.GetText(), n+1)); err != nil {
				return err
			}
		}
	}
	return p.end(ctx, q.GetText(), q.GetEnding())
}

// Collect returns what it was sent.
func (p *probe) Collect(stream grpc.ClientStreamingServer[probev1.CollectRequest, probev1.CollectResponse]) error {
	ctx := stream.Context()
	stream.SetTrailer(echoed(ctx, "x-echo-end"))
	if err := stream.SetHeader(echoed(ctx, "x-echo")); err != nil {
		return err
	}
	var answer probev1.CollectResponse
	for {
		q, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&answer)
		}
		if err != nil {
			return err
		}
		answer.Texts = append(answer.Texts, q.GetText())
		if err := p.end(ctx, q.GetText(), q.GetEnding()); err != nil {
			return err
		}
	}
}

// Chat answers each message with its text. When its caller goes, that is the event
// "gone" with the last text.
func (p *probe) Chat(stream grpc.BidiStreamingServer[probev1.ChatRequest, probev1.ChatResponse]) error {
	last := ""
	for {
		q, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if stream.Context().Err() != nil {
				close(p.event("gone " + last))
			}
			return err
		}
		last = q.GetText()
		if err := p.end(stream.Context(), last, q.GetEnding()); err != nil {
			return err
		}
		if err := stream.Send(&probev1.ChatResponse{Text: last}); err != nil {
			return err
		}
	}
}
