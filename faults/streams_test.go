package faults

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "google.golang.org/grpc/interop/grpc_testing"
)

// streams is callers who open streams at a steady rate, each of which lives for a
// while and is asked something at its begin and at its end.
type streams struct {
	rate int // a second
	life time.Duration
}

// streaming is such a load that is going on.
type streaming struct {
	t       *testing.T
	streams streams
	clients []*client
	begin   time.Time
	ends    chan struct{}
	open    sync.WaitGroup
	paced   sync.WaitGroup

	opened, failed atomic.Int64
	mu             sync.Mutex
	active         map[string]int // streams that a backend has answered and that are open
	faults         map[string]int // by text
}

func (l streams) begin(t *testing.T, g *gateway) *streaming {
	t.Helper()
	s := &streaming{
		t: t, streams: l, clients: newClients(t, []string{g.address}, connsOf()), begin: time.Now(), ends: make(chan struct{}),
		active: map[string]int{}, faults: map[string]int{},
	}
	s.paced.Go(s.pace)
	t.Cleanup(s.stop)
	return s
}

func (s *streaming) pace() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-s.ends:
			return
		case <-tick.C:
		}
		for due := int(time.Since(s.begin).Seconds() * float64(s.streams.rate)); n < due; n++ {
			c, nonce := s.clients[n%len(s.clients)], fmt.Sprintf("%x", newNonce(uint64(n)))
			s.open.Go(func() {
				s.opened.Add(1)
				if err := s.stream(c, nonce); err != nil {
					s.failed.Add(1)
					s.mu.Lock()
					s.faults[err.Error()]++
					s.mu.Unlock()
				}
			})
		}
	}
}

// stream opens a stream, lets it live, and ends it well.
func (s *streaming) stream(c *client, nonce string) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.streams.life+patience)
	defer cancel()
	stream, err := c.stub.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	name, err := say(stream, nonce)
	if err != nil {
		return err
	}
	s.count(name, 1)
	defer s.count(name, -1)
	select {
	case <-time.After(s.streams.life):
	case <-s.ends:
	}
	again, err := say(stream, nonce+" again")
	if err != nil {
		return err
	}
	if again != name {
		return fmt.Errorf("one stream, two backends")
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); err != io.EOF {
		return fmt.Errorf("end of a stream: %v, want its end", err)
	}
	return nil
}

// say sends a message and returns the name of the backend that answered it.
func say(stream pb.TestService_FullDuplexCallClient, text string) (string, error) {
	if err := stream.Send(&pb.StreamingOutputCallRequest{Payload: &pb.Payload{Body: []byte(text)}}); err != nil {
		if err == io.EOF { // why is told by what there is to receive
			_, err = stream.Recv()
		}
		return "", err
	}
	r, err := stream.Recv()
	if err != nil {
		return "", err
	}
	name, said, _ := strings.Cut(string(r.GetPayload().GetBody()), " ")
	if said != text {
		return "", fmt.Errorf("answer %q to %q", said, text)
	}
	return name, nil
}

func (s *streaming) count(name string, by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[name] += by
}

// load is how many streams each backend of these has, and their mean.
func (s *streaming) load(names []string) (counts map[string]int, mean float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts = make(map[string]int, len(names))
	for _, name := range names {
		counts[name] = s.active[name]
		mean += float64(s.active[name]) / float64(len(names))
	}
	return counts, mean
}

// stop ends all streams well and waits for them.
func (s *streaming) stop() {
	select {
	case <-s.ends:
	default:
		close(s.ends)
	}
	s.paced.Wait()
	s.open.Wait()
}

// errors lists what streams ended with.
func (s *streaming) errors() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for text, n := range s.faults {
		lines = append(lines, fmt.Sprintf("%6d × %s", n, text))
	}
	return strings.Join(lines, "\n")
}
