package hostile

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// An honest client that is busy, impatient and far away must not look like an
// attacker: 100 streams, cancels, deadlines that most RPCs miss, and the PINGs by
// which grpc-go measures a connection's bandwidth.
func TestA28HonestClientIsNotCutOff(t *testing.T) {
	r := newRig(t, nodeConfig{})
	tr := r.begin("an honest client")
	cc, err := grpc.NewClient("passthrough:///"+r.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(good),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, PermitWithoutStream: true}))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithCancel(t.Context()) // no deadline: it would be every RPC's
	defer time.AfterFunc(pick(3*time.Second, time.Hour), cancel).Stop()
	defer cancel()
	c := &client{t: t, cc: cc}
	var work sync.WaitGroup
	for i := range 30 {
		work.Go(func() { c.chat(ctx) })
		work.Go(func() { c.impatient(ctx, uint64(i)) })
	}
	for range 10 {
		work.Go(func() { c.download(ctx) })
		work.Go(func() { c.unary(ctx) })
	}
	work.Go(func() { c.cancels(ctx) })
	work.Wait()
	t.Logf("%d messages, %d RPCs, %d downloads, %d deadlines missed, %d cancelled", c.messages.Load(), c.unaries.Load(), c.downloads.Load(), c.missed.Load(), c.cancelled.Load())
	for k, v := range tr.counters(t).since(tr.counted) {
		if strings.HasPrefix(k, "sluice_conn_closed_total") || strings.HasPrefix(k, "sluice_stream_rejected_total") {
			t.Errorf("%s grew by %v, want nothing closed", k, v)
		}
	}
	tr.weigh(cost{memory: 128 << 20, cpu: time.Hour})
}

// client is what A28's goroutines share.
type client struct {
	t  *testing.T
	cc *grpc.ClientConn

	messages, unaries, downloads, missed, cancelled atomic.Int64
}

// chat keeps a stream of small messages going.
func (c *client) chat(ctx context.Context) {
	s, err := c.cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, echo)
	if err != nil {
		c.report(ctx, "chat", err)
		return
	}
	for p := []byte("a small message"); ; {
		var m []byte
		if err := s.SendMsg(&p); err != nil {
			return
		}
		if err := s.RecvMsg(&m); err != nil {
			c.report(ctx, "chat", err)
			return
		}
		c.messages.Add(1)
		<-time.After(time.Millisecond)
	}
}

// impatient has deadlines of 50 ms for what takes for ever.
func (c *client) impatient(ctx context.Context, seed uint64) {
	rng := rand.New(rand.NewPCG(28, seed))
	for ctx.Err() == nil {
		one, cancel := context.WithTimeout(ctx, time.Duration(40+rng.IntN(20))*time.Millisecond)
		var m []byte
		err := c.cc.Invoke(one, hold, &m, &m)
		cancel()
		if code := status.Code(err); code == codes.DeadlineExceeded {
			c.missed.Add(1)
		} else {
			c.report(ctx, "impatient", err)
		}
	}
}

// cancels gives up 30 RPCs a second, some before they can have arrived.
func (c *client) cancels(ctx context.Context) {
	tick := time.NewTicker(time.Second / 30)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		<-tick.C
		one, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Duration(n%5)*5*time.Millisecond, cancel)
		var m []byte
		if err := c.cc.Invoke(one, hold, &m, &m); status.Code(err) == codes.Canceled {
			c.cancelled.Add(1)
		} else {
			c.report(ctx, "cancelled", err)
		}
		cancel()
	}
}

func (c *client) download(ctx context.Context) {
	for ctx.Err() == nil {
		one := metadata.AppendToOutgoingContext(ctx, "blob-bytes", "2000000")
		s, err := c.cc.NewStream(one, &grpc.StreamDesc{ServerStreams: true}, blob)
		if err != nil {
			c.report(ctx, "download", err)
			return
		}
		var m []byte
		s.SendMsg(&m)
		s.CloseSend()
		for err == nil {
			err = s.RecvMsg(&m)
		}
		c.downloads.Add(1)
		<-time.After(50 * time.Millisecond)
	}
}

func (c *client) unary(ctx context.Context) {
	for ctx.Err() == nil {
		p, m := []byte("message"), []byte(nil)
		if err := c.cc.Invoke(ctx, echo, &p, &m); err != nil {
			c.report(ctx, "unary", err)
		}
		c.unaries.Add(1)
		<-time.After(2 * time.Millisecond)
	}
}

// report is of failures that are nobody's wish.
func (c *client) report(ctx context.Context, what string, err error) {
	if ctx.Err() == nil && err != nil {
		c.t.Errorf("%s: %v", what, err)
	}
}
