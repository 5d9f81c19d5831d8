package h2

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"
)

// transportSend sends total bytes, as numbers of eight bytes that count up, in
// pieces of any size up to 200 KiB.
func transportSend(t *Transport, total int) error {
	rng := rand.New(rand.NewPCG(1, 2))
	var p []byte
	for next := uint64(0); total > 0; {
		for len(p) < 200<<10 {
			p = binary.BigEndian.AppendUint64(p, next)
			next++
		}
		n := min(1+rng.IntN(200<<10), total)
		if err := transportWriteAll(t, p[:n]); err != nil {
			return fmt.Errorf("sending, %d bytes left: %w", total, err)
		}
		p = p[:copy(p, p[n:])]
		total -= n
	}
	return nil
}

// transportReceive reads what transportSend sends, and sleeps between reads for
// pause. It consumes whole numbers only, so that remainders lie about.
func transportReceive(t *Transport, total int, pause time.Duration) error {
	var b readBuffer
	defer b.release()
	for next, got := uint64(0), 0; got < total; {
		if err := t.fill(&b); err != nil {
			return fmt.Errorf("receiving, %d of %d bytes: %w", got, total, err)
		}
		for len(b.bytes()) >= 8 {
			if n := binary.BigEndian.Uint64(b.bytes()); n != next {
				return fmt.Errorf("number %d arrived where %d was due", n, next)
			}
			b.consume(8)
			got += 8
			next++
		}
		if pause > 0 {
			time.Sleep(pause)
		}
	}
	return nil
}
