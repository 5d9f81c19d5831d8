package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	echov1 "sluice/bench/echo/v1"
)

func TestEchoAnswersAHundredBytes(t *testing.T) {
	if size := proto.Size(newNote(noteRequest, 'A')); size != 100 {
		t.Errorf("the note has %d bytes, want 100", size)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	echov1.RegisterEchoServer(s, noteServer{fill: 'B'})
	go s.Serve(ln)
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	note, err := echov1.NewEchoClient(conn).Get(context.Background(), noteRequest)
	if err != nil || !proto.Equal(note, newNote(noteRequest, 'B')) {
		t.Errorf("Get = %v, %v, want the note of B", note, err)
	}
	if spread, _, err := probeSpeech(ln.Addr().String(), speakNative); err != nil || spread.SameConn != [2]int{0, probes} {
		t.Errorf("probeSpeech = %v, %v, want all from B", spread, err)
	}
}

// goodReply is one, to be damaged.
type goodReply struct {
	status  int
	content string
	body    string
	trailer string // the block in the body of gRPC-Web, the status of gRPC
}

func frame(flags byte, payload string) string {
	n := len(payload)
	return string([]byte{flags, 0, 0, byte(n >> 8), byte(n)}) + payload
}

func (g goodReply) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", g.content)
	w.WriteHeader(g.status)
	body := g.body
	if g.content == "application/grpc-web+proto" && g.trailer != "" {
		body += frame(0x80, g.trailer)
	}
	w.Write([]byte(body))
}

func TestProbeSpeechChecksEveryByte(t *testing.T) {
	raw, err := proto.Marshal(newNote(noteRequest, 'A'))
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.Marshal(newNote(noteRequest, 'A'))
	if err != nil {
		t.Fatal(err)
	}
	web := goodReply{200, "application/grpc-web+proto", frame(0, string(raw)), "grpc-status: 0\r\ngrpc-message: \r\n"}
	rest := goodReply{200, "application/json", string(text), ""}
	tests := []struct {
		name   string
		speech *speech
		good   goodReply
		damage func(*goodReply)
		want   string // part of the error
	}{
		{"gRPC-Web", speakWebHTTP1, web, func(*goodReply) {}, ""},
		{"gRPC-Web, small letters or not", speakWebHTTP1, web, func(g *goodReply) { g.trailer = "Grpc-Status:0\r\n" }, ""},
		{"no trailer", speakWebHTTP1, web, func(g *goodReply) { g.trailer = "" }, "trailer: 0 bytes"},
		{"another status", speakWebHTTP1, web, func(g *goodReply) { g.trailer = "grpc-status: 14\r\n" }, "want grpc-status 0"},
		{"no status", speakWebHTTP1, web, func(g *goodReply) { g.trailer = "x: 0\r\n" }, "want grpc-status 0"},
		{"two messages", speakWebHTTP1, web, func(g *goodReply) { g.body += g.body }, "flags 0x0, want 0x80"},
		{"cut message", speakWebHTTP1, web, func(g *goodReply) { g.body, g.trailer = g.body[:50], "" }, "want the 100 of the prefix"},
		{"bytes after the trailer", speakWebHTTP1, web, func(g *goodReply) { g.body, g.trailer = g.body+frame(0x80, g.trailer)+"x", "" }, "1 bytes after the trailer"},
		{"another message", speakWebHTTP1, web, func(g *goodReply) { g.body = strings.Replace(g.body, "AAAA", "AAAB", 1) }, "want that of a backend"},
		{"another type", speakWebHTTP1, web, func(g *goodReply) { g.content = "application/json" }, `content-type "application/json"`},
		{"HTTP status", speakWebHTTP1, web, func(g *goodReply) { g.status = 502 }, "HTTP status 502"},
		{"REST", speakREST, rest, func(*goodReply) {}, ""},
		{"another value", speakREST, rest, func(g *goodReply) { g.body = strings.Replace(g.body, "first", "farst", 1) }, "want that of a backend"},
		{"no JSON", speakREST, rest, func(g *goodReply) { g.body = g.body[1:] }, "body"},
		{"a page", speakREST, rest, func(g *goodReply) { g.content = "text/html" }, `content-type "text/html"`},
		{"gRPC without a trailer", speakNative, goodReply{200, "application/grpc", frame(0, string(raw)), ""}, func(*goodReply) {}, "want grpc-status 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.damage(&tt.good)
			addr := serve(t, tt.good, nil)
			if tt.speech.http1 {
				s := httptest.NewServer(tt.good)
				defer s.Close()
				addr = s.Listener.Addr().String()
			}
			spread, body, err := probeSpeech(addr, tt.speech)
			switch {
			case tt.want == "" && (err != nil || spread.SameConn != [2]int{probes, 0} || body < 100):
				t.Errorf("probeSpeech = %+v, %d bytes, %v, want all from A", spread, body, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("probeSpeech: %v, want an error with %q", err, tt.want)
			}
			if err := probeLate(addr, tt.speech); err == nil {
				t.Error("probeLate of a server that enforces no deadline: no error")
			}
		})
	}
}

// TestProbeSpeechWantsBodiesOfOneLength because the bytes under load are checked by
// their number only.
func TestProbeSpeechWantsBodiesOfOneLength(t *testing.T) {
	text, err := protojson.Marshal(newNote(noteRequest, 'A'))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		text = append(text, ' ')
		w.Write(text)
	}))
	defer s.Close()
	if _, _, err := probeSpeech(s.Listener.Addr().String(), speakREST); err == nil || !strings.Contains(err.Error(), "for the same note") {
		t.Errorf("probeSpeech: %v, want an error about lengths", err)
	}
}

func TestSpeechSaysWhatIsCounted(t *testing.T) {
	tests := []struct {
		name   string
		speech *speech
		want   counts
	}{
		{"file servers", nativeSpeech(unaryPath), counts{ok: 7, relay: 7}},
		{"native", speakNative, counts{ok: 7, relay: 7, spoken: 7}},
		{"gRPC-Web on the relay", speakWebHTTP2, counts{ok: 7, relay: 7, spoken: 7}},
		{"gRPC-Web on HTTP/1.1", speakWebHTTP1, counts{ok: 7, elsewise: 7, spoken: 7}},
		{"REST", speakREST, counts{ok: 7, elsewise: 7, spoken: 7}},
	}
	for _, tt := range tests {
		if got := tt.speech.counts(7); got != tt.want {
			t.Errorf("%s: counts = %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestLoadCommandSaysHowToAsk(t *testing.T) {
	b := &bench{dir: t.TempDir(), tools: map[string]string{"h2load": "h2load"}, requests: map[*speech]string{}}
	tests := []struct {
		name      string
		speech    *speech
		has, lack []string
	}{
		{"REST", speakREST, []string{" --h1 ", "http://host:1/v1/notes/bench-note?lines=12", "grpc-timeout: 5S"}, []string{" -d ", "content-type"}},
		{"Connect", speakConnectJSON, []string{" --h1 ", " -d ", "content-type: application/json", "http://host:1/bench.echo.v1.Echo/Get"}, nil},
		{"gRPC-Web", speakWebHTTP2, []string{" -d ", "content-type: application/grpc-web+proto"}, []string{"--h1", "te: "}},
		{"native", speakNative, []string{" -d ", "te: trailers"}, []string{"--h1"}},
	}
	for _, tt := range tests {
		argv, err := b.loadCommand(load{addr: "host:1", speech: tt.speech, conns: 1, streams: 1, requests: 1}, "log")
		if err != nil {
			t.Fatal(err)
		}
		line := strings.Join(argv, " ")
		for _, want := range tt.has {
			if !strings.Contains(line, want) {
				t.Errorf("%s: %s lacks %q", tt.name, line, want)
			}
		}
		for _, not := range tt.lack {
			if strings.Contains(line, not) {
				t.Errorf("%s: %s has %q", tt.name, line, not)
			}
		}
	}
}
