package h2

import (
	"testing"
)

func TestConnGreets(t *testing.T) {
	for _, side := range []struct {
		name string
		dial func(testing.TB, Limits) *peer
	}{{"server", newServerPeer}, {"client", newClientPeer}} {
		t.Run(side.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := side.dial(t, Limits{})
				p.greet()
				p.wantIdle("all has been said")
			})
		})
	}
}

func TestConnCarriesAnExchange(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		p.writeRequest(1, false, "te: trailers")
		p.writeData(1, "ping", true)
		s := p.stream(1)
		p.rec.want(t, "a request", "open 1 POST /shop.v1.Cart/Get", `data 1 "ping" end`)
		sendHeader(s, false, ":status: 200")
		sendData(s, "pong", false)
		sendHeader(s, true, "grpc-status: 0")
		p.wantFrame("a response",
			debugHeaders{1, ":status: 200", false}, debugData{1, "pong", false}, debugHeaders{1, "grpc-status: 0", true})
		p.wantIdle("the stream is over")
		p.rec.want(t, "a stream that ends by itself")
	})
}
