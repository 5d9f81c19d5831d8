package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sluice/gateway/schema"
	"sluice/gateway/wire"
)

type text = wrapperspb.StringValue

const (
	pathUnary  = "/test.v1.Echo/Unary"
	pathGet    = "/test.v1.Echo/Get"
	pathClient = "/test.v1.Echo/Client"
	pathServer = "/test.v1.Echo/Server"
	pathBidi   = "/test.v1.Echo/Bidi"
)

func echoMethods() map[string]*schema.Method {
	return map[string]*schema.Method{
		pathUnary:  testMethod(pathUnary, false, false, false),
		pathGet:    testMethod(pathGet, false, false, true),
		pathClient: testMethod(pathClient, true, false, false),
		pathServer: testMethod(pathServer, false, true, false),
		pathBidi:   testMethod(pathBidi, true, true, false),
	}
}

// echo answers as its method's kind has it, in the caller's encoding.
func echo(c *connectCall) *wire.Status {
	c.header = http.Header{
		"X-Seen": c.o.Metadata["X-Said"], "X-Raw-Bin": c.o.Metadata["X-Raw-Bin"],
		"Content-Type": {"application/grpc"}, "Grpc-Encoding": {"lie"}, "Connect-Content-Encoding": {"lie"},
	}
	c.trailer = http.Header{"X-Last": {"a", "b"}, "Grpc-Status": {"0"}, "X-End-Bin": {"AAEC"}}
	c.encoding = c.o.Encoding
	var all []Message
	for {
		m, ok := c.recv()
		if !ok {
			break
		}
		all = append(all, m)
		if c.o.Method == pathBidi {
			c.send(m)
		}
	}
	switch c.o.Method {
	case pathUnary, pathGet, pathClient:
		if len(all) > 0 {
			c.send(all[len(all)-1])
		}
	case pathServer:
		for range 3 {
			c.send(all[0])
		}
	}
	return nil
}

func TestConnectServesEveryKindOfRPC(t *testing.T) {
	for _, version := range []int{1, 2} {
		for _, codec := range []string{"proto", "json"} {
			for _, encoding := range []string{"identity", "gzip"} {
				t.Run(fmt.Sprintf("http%d/%s/%s", version, codec, encoding), func(t *testing.T) {
					way := &connectWay{backend: echo, methods: echoMethods()}
					s := serveConnect(t, way)
					opts := []connect.ClientOption{}
					if codec == "json" {
						opts = append(opts, connect.WithProtoJSON())
					}
					if encoding == "gzip" {
						opts = append(opts, connect.WithSendGzip())
					}
					e := &echoClient{t: t, http: clientOf(t, version), url: s.URL, opts: opts}
					e.unary(pathUnary)
					e.unary(pathGet, connect.WithHTTPGet(), connect.WithIdempotency(connect.IdempotencyNoSideEffects))
					e.client()
					e.server()
					if version == 2 {
						e.bidi()
					}
				})
			}
		}
	}
}

// echoClient makes connect-go's client the judge.
type echoClient struct {
	t    *testing.T
	http *http.Client
	url  string
	opts []connect.ClientOption
}

func (e *echoClient) to(path string, more ...connect.ClientOption) *connect.Client[text, text] {
	return connect.NewClient[text, text](e.http, e.url+path, append(more, e.opts...)...)
}

// long is worth compressing.
var long = strings.Repeat("so it goes ", 1000)

func (e *echoClient) unary(path string, more ...connect.ClientOption) {
	req := connect.NewRequest(wrapperspb.String(long))
	req.Header().Set("X-Said", "hello")
	req.Header().Set("X-Raw-Bin", "3q2+7w")
	resp, err := e.to(path, more...).CallUnary(context.Background(), req)
	if err != nil {
		e.t.Errorf("%s: %v", path, err)
		return
	}
	if resp.Msg.Value != long {
		e.t.Errorf("%s: got %d bytes back, sent %d", path, len(resp.Msg.Value), len(long))
	}
	e.metadata(path, resp.Header(), resp.Trailer())
}

func (e *echoClient) metadata(path string, header, trailer http.Header) {
	if got := header.Get("X-Seen"); got != "hello" {
		e.t.Errorf("%s: backend saw x-said %q", path, got)
	}
	if got := header.Get("X-Raw-Bin"); got != "3q2+7w" {
		e.t.Errorf("%s: backend saw x-raw-bin %q", path, got)
	}
	if got := fmt.Sprint(trailer["X-Last"], trailer["X-End-Bin"]); got != "[a b] [AAEC]" {
		e.t.Errorf("%s: trailers %s, want [a b] [AAEC]", path, got)
	}
	for _, h := range []http.Header{header, trailer} {
		for name := range h {
			if strings.HasPrefix(name, "Grpc-") || h.Get(name) == "lie" {
				e.t.Errorf("%s: field %s of the backend's protocol got through", path, name)
			}
		}
	}
}

func (e *echoClient) client() {
	s := e.to(pathClient).CallClientStream(context.Background())
	s.RequestHeader().Set("X-Said", "hello")
	s.RequestHeader().Set("X-Raw-Bin", "3q2+7w")
	for i := range 3 {
		if err := s.Send(wrapperspb.String(long[i:])); err != nil {
			e.t.Errorf("send: %v", err)
		}
	}
	resp, err := s.CloseAndReceive()
	if err != nil {
		e.t.Errorf("client stream: %v", err)
		return
	}
	if resp.Msg.Value != long[2:] {
		e.t.Errorf("client stream: got %d bytes, want the last message", len(resp.Msg.Value))
	}
	e.metadata(pathClient, resp.Header(), resp.Trailer())
}

func (e *echoClient) server() {
	req := connect.NewRequest(wrapperspb.String(long))
	req.Header().Set("X-Said", "hello")
	req.Header().Set("X-Raw-Bin", "3q2+7w")
	s, err := e.to(pathServer).CallServerStream(context.Background(), req)
	if err != nil {
		e.t.Errorf("server stream: %v", err)
		return
	}
	defer s.Close()
	n := 0
	for ; s.Receive(); n++ {
		if s.Msg().Value != long {
			e.t.Errorf("server stream: message %d has %d bytes", n, len(s.Msg().Value))
		}
	}
	if s.Err() != nil || n != 3 {
		e.t.Errorf("server stream: %d messages, then %v", n, s.Err())
	}
	e.metadata(pathServer, s.ResponseHeader(), s.ResponseTrailer())
}

// bidi waits for each answer before it says more.
func (e *echoClient) bidi() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s := e.to(pathBidi).CallBidiStream(ctx)
	s.RequestHeader().Set("X-Said", "hello")
	s.RequestHeader().Set("X-Raw-Bin", "3q2+7w")
	for i := range 3 {
		if err := s.Send(wrapperspb.String(long[i:])); err != nil {
			e.t.Errorf("send: %v", err)
		}
		got, err := s.Receive()
		if err != nil {
			e.t.Errorf("receive: %v", err)
			return
		}
		if got.Value != long[i:] {
			e.t.Errorf("bidi: message %d has %d bytes", i, len(got.Value))
		}
	}
	if err := s.CloseRequest(); err != nil {
		e.t.Errorf("close request: %v", err)
	}
	if _, err := s.Receive(); !errors.Is(err, io.EOF) {
		e.t.Errorf("after the last message: %v, want EOF", err)
	}
	e.metadata(pathBidi, s.ResponseHeader(), s.ResponseTrailer())
	s.CloseResponse()
}

func TestConnectTellsErrorsWithTheirDetails(t *testing.T) {
	detail, err := anypb.New(&errdetails.RetryInfo{})
	if err != nil {
		t.Fatal(err)
	}
	foreign := &anypb.Any{TypeUrl: "type.example.com/test.v1.Unknown", Value: []byte{1, 2, 255}}
	raw, err := proto.Marshal(&statuspb.Status{Code: 5, Message: "no such cart", Details: []*anypb.Any{detail, foreign}})
	if err != nil {
		t.Fatal(err)
	}
	for code := wire.Canceled; code < wire.NumCodes+2; code++ {
		way := &connectWay{methods: echoMethods(), backend: func(c *connectCall) *wire.Status {
			c.header = http.Header{"X-First": {"1"}}
			c.trailer = http.Header{"X-Last": {"2"}}
			return &wire.Status{Code: code, Message: "no such cart", Details: raw}
		}}
		s := serveConnect(t, way)
		want := connect.Code(code.Clamp())
		check := func(path string, err error, header, trailer http.Header) {
			t.Helper()
			var ce *connect.Error
			if !errors.As(err, &ce) {
				t.Fatalf("%s, code %d: %v, want an error of Connect", path, code, err)
			}
			if ce.Code() != want || ce.Message() != "no such cart" || len(ce.Details()) != 2 {
				t.Errorf("%s, code %d: got %v with %d details", path, code, ce, len(ce.Details()))
				return
			}
			if d := ce.Details()[0]; d.Type() != "google.rpc.RetryInfo" {
				t.Errorf("%s: first detail is a %s", path, d.Type())
			}
			if d := ce.Details()[1]; d.Type() != "test.v1.Unknown" || string(d.Bytes()) != "\x01\x02\xff" {
				t.Errorf("%s: second detail is a %s: %q", path, d.Type(), d.Bytes())
			}
			if m := ce.Meta(); m.Get("X-First") != "1" || m.Get("X-Last") != "2" {
				t.Errorf("%s: metadata %v", path, m)
			}
		}
		_, err := connect.NewClient[text, text](clientOf(t, 1), s.URL+pathUnary).CallUnary(context.Background(), connect.NewRequest(wrapperspb.String("a")))
		check(pathUnary, err, nil, nil)
		stream, err := connect.NewClient[text, text](clientOf(t, 2), s.URL+pathServer).CallServerStream(context.Background(), connect.NewRequest(wrapperspb.String("a")))
		if err != nil {
			t.Fatal(err)
		}
		for stream.Receive() {
		}
		check(pathServer, stream.Err(), nil, nil)
		stream.Close()
	}
}
