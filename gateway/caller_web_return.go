package gateway

import (
	"sync"

	"sluice/gateway/h2"
)

// textReturn gives a backend's stream as much window back as the bytes were that the
// text which has left stands for: never more, or the backend could send more than we
// may hold.
type textReturn struct {
	to h2.Creditor

	mu   sync.Mutex // guards the fields below
	raw  int        // bytes that came and have not been given back
	text int        // bytes of text that stand for them
}

// sent notes that raw bytes were sent as text.
func (t *textReturn) sent(raw, text int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.raw += raw
	t.text += text
}

// Credit implements h2.Creditor.
func (t *textReturn) Credit(n int32, drained bool, b *h2.Batch) {
	t.mu.Lock()
	// Of a trailers' text nothing stands in the books.
	taken := min(int(n), t.text)
	back := t.raw
	if taken < t.text {
		back = int(int64(t.raw) * int64(taken) / int64(t.text))
	}
	t.raw -= back
	t.text -= taken
	t.mu.Unlock()
	if back > 0 {
		t.to.Credit(int32(back), drained, b)
	}
}
