package hostile

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Methods of the honest backend.
const (
	echo = "/hostile.Honest/Echo" // every message comes back, and metadata that begins with "echo-" as trailers
	hold = "/hostile.Honest/Hold" // no answer, as long as the caller stays; nothing of the request is read
	blob = "/hostile.Honest/Blob" // messages of 8 KiB until "blob-bytes" bytes are sent
)

// bytesCodec passes messages on as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (bytesCodec) Name() string                  { return "bytes" }
func (bytesCodec) Unmarshal(p []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), p...)
	return nil
}

// honest is a backend that grpc-go wrote, and counts what reaches it.
type honest struct {
	addr               string
	held, active, peak atomic.Int64 // RPCs of hold: ever, now, most at once
}

func startHonest(t testing.TB, l net.Listener, options ...grpc.ServerOption) *honest {
	t.Helper()
	if l == nil {
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	h := &honest{addr: l.Addr().String()}
	s := grpc.NewServer(append(options, grpc.ForceServerCodec(bytesCodec{}), grpc.UnknownServiceHandler(h.serve))...)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return h
}

func (h *honest) serve(_ any, s grpc.ServerStream) error {
	switch method, _ := grpc.MethodFromServerStream(s); method {
	case echo, chat:
		return serveEcho(s)
	case hold:
		return h.serveHold(s)
	case blob:
		return serveBlob(s)
	default:
		return status.Errorf(codes.Unimplemented, "method %q", method)
	}
}

func (h *honest) serveHold(s grpc.ServerStream) error {
	h.held.Add(1)
	n := h.active.Add(1)
	defer h.active.Add(-1)
	for peak := h.peak.Load(); n > peak && !h.peak.CompareAndSwap(peak, n); peak = h.peak.Load() {
	}
	<-s.Context().Done()
	return s.Context().Err()
}

func serveEcho(s grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	back := metadata.MD{}
	for k, v := range md {
		if len(k) > 5 && k[:5] == "echo-" {
			back[k] = v
		}
	}
	s.SetTrailer(back)
	for {
		var m []byte
		if err := s.RecvMsg(&m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.SendMsg(&m); err != nil {
			return err
		}
	}
}

func serveBlob(s grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	n, err := strconv.Atoi(fmt.Sprint(md["blob-bytes"][0]))
	if err != nil {
		return err
	}
	for part := note(strings.Repeat("x", 8<<10-5-3)); n > 0; n -= 8 << 10 {
		if err := s.SendMsg(&part); err != nil {
			return err
		}
	}
	return nil
}
