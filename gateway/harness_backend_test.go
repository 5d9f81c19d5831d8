package gateway

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// raw carries messages as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (raw) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}

func (raw) Name() string { return "proto" }

// answer serves one RPC.
type answer func(b *backend, st grpc.ServerStream) error

// answers are by the method's name, whatever its service is.
var answers = map[string]answer{
	"Echo":   echo,
	"Who":    who,
	"Hold":   hold,
	"Hang":   hang,
	"Sink":   sink,
	"Source": source,
}

// backend is a grpc-go server that knows every method.
type backend struct {
	name, addr string
	grpc       *grpc.Server
	served     atomic.Int64 // RPCs that have reached a handler
	open       atomic.Int64 // and those that are still there
	cancelled  atomic.Int64 // and those whose caller went away
	release    chan struct{}
	more       map[string]answer // of this one only

	mu     sync.Mutex
	nonces map[string]int // by the metadata x-nonce: how often it came
}

// startBackend runs a backend until the test ends.
func startBackend(t testing.TB, name string, opts ...grpc.ServerOption) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveBackend(t, name, l, nil, opts...)
}

func serveBackend(t testing.TB, name string, l net.Listener, more map[string]answer, opts ...grpc.ServerOption) *backend {
	t.Helper()
	b := &backend{name: name, addr: l.Addr().String(), release: make(chan struct{}), nonces: make(map[string]int), more: more}
	opts = append([]grpc.ServerOption{
		grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(b.handle),
		grpc.MaxRecvMsgSize(1 << 30), grpc.MaxSendMsgSize(1 << 30),
	}, opts...)
	b.grpc = grpc.NewServer(opts...)
	go b.grpc.Serve(l)
	t.Cleanup(b.grpc.Stop)
	return b
}

// startAnswering is a backend with methods of its own.
func startAnswering(t testing.TB, more map[string]answer, opts ...grpc.ServerOption) *backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveBackend(t, "own", l, more, opts...)
}

func (b *backend) handle(_ any, st grpc.ServerStream) error {
	b.served.Add(1)
	b.open.Add(1)
	defer b.open.Add(-1)
	if md, ok := metadata.FromIncomingContext(st.Context()); ok {
		b.mu.Lock()
		for _, n := range md.Get("x-nonce") {
			b.nonces[n]++
		}
		b.mu.Unlock()
	}
	method, _ := grpc.MethodFromServerStream(st)
	name := method[strings.LastIndexByte(method, '/')+1:]
	a := b.more[name]
	if a == nil {
		a = answers[name]
	}
	if a == nil {
		return status.Errorf(codes.Unimplemented, "backend %s has no %s", b.name, name)
	}
	err := a(b, st)
	if st.Context().Err() == context.Canceled {
		b.cancelled.Add(1)
	}
	return err
}

// echo sends each message back.
func echo(_ *backend, st grpc.ServerStream) error {
	for {
		var m []byte
		if err := st.RecvMsg(&m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := st.SendMsg(&m); err != nil {
			return err
		}
	}
}

// who answers with the backend's name.
func who(b *backend, st grpc.ServerStream) error {
	var m []byte
	if err := st.RecvMsg(&m); err != nil {
		return err
	}
	m = []byte(b.name)
	return st.SendMsg(&m)
}

// hold sends its header and its name, and ends when it is released.
func hold(b *backend, st grpc.ServerStream) error {
	m := []byte(b.name)
	if err := st.SendMsg(&m); err != nil {
		return err
	}
	select {
	case <-b.release:
		return nil
	case <-st.Context().Done():
		return st.Context().Err()
	}
}

// hang says nothing at all.
func hang(b *backend, st grpc.ServerStream) error {
	select {
	case <-b.release:
		return nil
	case <-st.Context().Done():
		return st.Context().Err()
	}
}

// sink takes messages and answers with their bytes and a checksum.
func sink(_ *backend, st grpc.ServerStream) error {
	var d digest
	for {
		var m []byte
		if err := st.RecvMsg(&m); err == io.EOF {
			out := d.bytes()
			return st.SendMsg(&out)
		} else if err != nil {
			return err
		}
		d.add(m)
	}
}

// source sends as many messages as the request says, "count size".
func source(_ *backend, st grpc.ServerStream) error {
	var m []byte
	if err := st.RecvMsg(&m); err != nil {
		return err
	}
	count, size, _ := strings.Cut(string(m), " ")
	n, _ := strconv.Atoi(count)
	each, _ := strconv.Atoi(size)
	for i := range n {
		p := pattern(i, each)
		if err := st.SendMsg(&p); err != nil {
			return err
		}
	}
	return nil
}

// pattern is a message that no other index has.
func pattern(index, size int) []byte {
	p := make([]byte, size)
	x := uint32(index)*2654435761 + 1
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
	return p
}

// digest tells whether bytes arrived as they were sent.
type digest struct {
	n   uint64
	crc uint32
}

func (d *digest) add(p []byte) {
	d.n += uint64(len(p))
	d.crc = crc32.Update(d.crc, crc32.IEEETable, p)
}

func (d *digest) bytes() []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, d.n), d.crc)
}

// dial returns a client of the gateway, or of a backend.
func dial(t testing.TB, addr string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	opts = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)),
	}, opts...)
	cc, err := grpc.NewClient("passthrough:///"+addr, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

// invoke makes a unary RPC.
func invoke(ctx context.Context, cc *grpc.ClientConn, method string, request []byte, opts ...grpc.CallOption) ([]byte, error) {
	var reply []byte
	err := cc.Invoke(ctx, method, &request, &reply, opts...)
	return reply, err
}

// mustCall makes one that has to succeed.
func mustCall(t testing.TB, cc *grpc.ClientConn, method string, request []byte, opts ...grpc.CallOption) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	reply, err := invoke(ctx, cc, method, request, opts...)
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	return reply
}

var bidi = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// stream opens a stream.
func stream(t testing.TB, ctx context.Context, cc *grpc.ClientConn, method string, opts ...grpc.CallOption) grpc.ClientStream {
	t.Helper()
	st, err := cc.NewStream(ctx, bidi, method, opts...)
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	return st
}

// say sends one message, hear receives one.
func say(t testing.TB, st grpc.ClientStream, m []byte) {
	t.Helper()
	if err := st.SendMsg(&m); err != nil {
		t.Fatalf("send: %v", err)
	}
}

func hear(t testing.TB, st grpc.ClientStream) []byte {
	t.Helper()
	var m []byte
	if err := st.RecvMsg(&m); err != nil {
		t.Fatalf("receive: %v", err)
	}
	return m
}

// wantStatus fails unless err is of that code, with a message that begins so.
func wantStatus(t testing.TB, what string, err error, code codes.Code, message string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code || !strings.HasPrefix(s.Message(), message) {
		t.Errorf("%s: got %v %q, want %v %q", what, s.Code(), s.Message(), code, message)
	}
}

// each runs f for 0 to n-1 on some goroutines, and waits.
func each(n, workers int, f func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				f(i)
			}
		})
	}
	wg.Wait()
}

// shortly is a context that ends with the test at the latest.
func shortly(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// deadAddress is where nobody listens: a port that no test can be given meanwhile.
func deadAddress() string { return fmt.Sprint("127.0.0.1:", deadPorts.Add(1)%7+1) }

var deadPorts atomic.Int32

// took returns how long f ran.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// listenMute takes connections and never says a word.
func listenMute(t testing.TB) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			conns = append(conns, nc)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		for _, nc := range conns {
			nc.Close()
		}
	})
	return l.Addr().String()
}
