package hostile

import (
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// Wrong messages of a WebSocket end its RPC with an error that its caller can read; what
// is no WebSocket's ends the connection.
func TestTranslatedWrongSocketMessages(t *testing.T) {
	r := newTranslating(t, nodeConfig{}, "")
	tr := r.begin("wrong messages of WebSockets")
	one := "\x00" + string(framed(0, note("x")))
	var work sync.WaitGroup
	for _, test := range []struct {
		name, sent string
		told       bool // a status; else the connection just ends
	}{
		{"an unknown first byte", socketHeader + socketMessage("\x07"), true},
		{"an empty message", socketHeader + socketMessage(""), true},
		{"more behind the end", socketHeader + socketMessage(one) + socketMessage("\x01x"), true},
		{"flags of trailers", socketHeader + socketMessage("\x00"+string(framed(0x80, nil))), true},
		{"the end in a message", socketHeader + socketMessage(one[:8]) + socketMessage("\x01"), true},
		{"another type", socketMessage("content-type: application/json\r\n\r\n"), true},
		{"a message of text", socketHeader + "\x81\x80\x00\x00\x00\x00", true},
		{"no header", socketMessage("\x00\x01\x02"), false},
		{"without a mask", "\x82\x05hello", false},
		{"16 EiB declared", "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", false},
		{"an unknown opcode", "\x83\x80\x00\x00\x00\x00", false},
		{"a ping of 200 bytes", "\x89\xfe\x00\xc8\x00\x00\x00\x00" + strings.Repeat("p", 200), false},
	} {
		nc := r.raw(t, socketUpgrade+test.sent)
		work.Go(func() { // together: farewells that nobody answers take 5 s
			nc.SetDeadline(time.Now().Add(patience))
			answer, _ := io.ReadAll(nc)
			nc.Close()
			_, status, has := strings.Cut(strings.ToLower(string(answer)), "grpc-status:")
			if status = strings.TrimSpace(status); has != test.told || strings.HasPrefix(status, "0") {
				t.Errorf("%s: %.300q, want an error status: %v", test.name, answer, test.told)
			}
		})
	}
	work.Wait()
	r.clean()
	tr.judge(cost{memory: 16 << 20, cpu: time.Second})
}
