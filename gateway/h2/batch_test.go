package h2

import (
	"testing"
	"time"
)

// A batch flushes each connection once, and those that flushing touches as well.
func TestBatchFlushesWhatItTouched(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		other := newServerPeerOn(t, p.eng, newRecorder())
		other.greet()
		s, s2 := p.request(1, true), other.request(1, true)
		var b Batch
		s.SendHeader(engineFields(":status: 200"), false, &b)
		s2.SendHeader(engineFields(":status: 200"), false, &b)
		s.SendData([]byte("x"), true, &b)
		p.wantIdle("nothing leaves before the flush")
		other.wantIdle("nothing leaves before the flush")
		if len(b.conns) != 2 {
			t.Errorf("%d connections in the batch, want 2", len(b.conns))
		}
		b.Flush()
		p.wantFrame("flushed", debugHeaders{1, ":status: 200", false}, debugData{1, "x", true})
		other.wantFrame("flushed", debugHeaders{1, ":status: 200", false})
		if len(b.conns) != 0 {
			t.Errorf("%d connections left in the batch", len(b.conns))
		}
		b.Flush()
		p.wantIdle("there is nothing left to flush")
	})
}

// What one batch has touched another may flush; nothing is lost or sent twice.
func TestBatchesShareAConnection(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedServer(t, Limits{})
		s := p.request(1, true)
		var a, b Batch
		s.SendHeader(engineFields(":status: 200"), false, &a)
		s.SendData([]byte("x"), false, &b)
		b.Flush()
		p.wantFrame("both", debugHeaders{1, ":status: 200", false}, debugData{1, "x", false})
		s.SendData([]byte("y"), true, &a)
		a.Flush()
		p.wantFrame("the rest", debugData{1, "y", true})
	})
}

func TestBatchIsReused(t *testing.T) {
	eng := NewEngine(Limits{})
	ours, theirs := newMemoryConns(pipeRoom)
	defer theirs.Close()
	c := eng.NewServer(NewTransport(ours, nil), newRecorder(), time.Now())
	c.writing = true // somebody else owns the socket
	var b Batch
	b.touch(c)
	b.Flush()
	if n := testing.AllocsPerRun(100, func() {
		c.mu.Lock()
		b.touch(c)
		c.mu.Unlock()
		b.Flush()
	}); n != 0 {
		t.Errorf("%v allocations for a flush, want none", n)
	}
}
