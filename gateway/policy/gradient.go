package policy

import (
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// gradientEvery is how often the limit is worked out anew, given enough samples.
	gradientEvery   = 100 * time.Millisecond
	gradientSamples = 10
	// maxSamples bounds what is remembered of one window: the first ones.
	maxSamples = 512

	// tolerated is how much longer than at its best an RPC may take before the limit
	// falls: 25 %.
	tolerated = 1.25
	// The limit does not fall by more than a half at a time, nor rise by more than it.
	maxFall, maxRise = 0.5, 1.5

	// How long RPCs take at best is found anew each probeEvery, give or take 15 %, from
	// probeSamples of them, while no more than a half of the limit are open. It ends after
	// probeFor whatever there is.
	probeEvery   = 60 * time.Second
	probeJitter  = 0.15
	probeSamples = 50
	probeFor     = 5 * time.Second
	// better is how much shorter the best time has to be for another look with half as
	// much open: it may not have been the best yet.
	better = 0.9

	// Where the limit has fallen to a third of what it was, and RPCs take as long as ever,
	// it was not for them that they did; where they take much less than at best, neither.
	// The best time is another then, and is found anew, no sooner than probeAgain after the
	// last time.
	collapse   = 3
	probeAgain = 5 * time.Second

	// firstLimit is where the search begins.
	firstLimit = 100

	// lifeUnit is how exactly it is known how old an open RPC is, and lives in how many
	// of them it counts: whoever waits for longer than that waits for something to
	// happen, and not for the backend to be done.
	lifeUnit = 5 * time.Second
	lives    = 3
)

// Gradient finds out how much may be open at once: it lowers its limit when answers take
// longer than at their best, and raises it while they do not and the limit is in use.
type Gradient struct {
	least, most float64
	random      func() float64 // in [0, 1)

	mu    sync.Mutex // guards the fields below
	limit float64
	top   float64 // the highest limit since the best time was found

	open  int        // of the last lives
	ages  [lives]int // of open, by when they began
	life  int64      // the youngest of them; counts lifeUnits
	began time.Time  // of life 0

	best    time.Duration // how long an RPC takes at best; zero = not known yet
	samples []time.Duration
	since   time.Time // of the samples
	peak    int       // the most that was open since then

	probe probe
}

// probe is the search for the best time.
type probe struct {
	next  time.Time // when to begin
	ended time.Time // the last one
	on    bool
	limit int           // while on
	until time.Time     // when to end, whatever there is
	from  time.Time     // RPCs that began before say nothing; zero while too many are open
	last  time.Duration // what was the best before, with twice as much open
}

// Slot is one that is open.
type Slot struct{ life int64 }

// NewGradient returns a limit that stays between the two.
func NewGradient(least, most int, now time.Time, random func() float64) *Gradient {
	least = max(least, 1)
	most = max(most, least)
	g := &Gradient{least: float64(least), most: float64(most), random: random, began: now, since: now}
	g.limit = min(max(firstLimit, g.least), g.most)
	g.probe.next = now
	return g
}

// Limit is how much may be open now.
func (g *Gradient) Limit() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inForce()
}

func (g *Gradient) inForce() int {
	if g.probe.on {
		return g.probe.limit
	}
	return int(g.limit)
}

// Acquire counts one more, if there is room for it.
func (g *Gradient) Acquire(now time.Time) (Slot, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.grow(now)
	if g.probe.on && now.After(g.probe.until) {
		g.endProbe(now)
	}
	if g.open >= g.inForce() {
		g.peak = max(g.peak, g.open)
		return Slot{}, false
	}
	g.open++
	g.ages[index(g.life, lives)]++
	g.peak = max(g.peak, g.open)
	return Slot{g.life}, true
}

// Release is called once for each Acquire that was true, with how long it took until the
// answer began. If told is false, that says nothing of the backend.
func (g *Gradient) Release(s Slot, now time.Time, took time.Duration, told bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.grow(now)
	if s.life <= g.life-lives || s.life > g.life {
		return // forgotten
	}
	g.open--
	g.ages[index(s.life, lives)]--
	if g.probe.on && g.probe.from.IsZero() && g.open < g.probe.limit {
		g.probe.from = now
		g.restart(now)
	}
	if told && took > 0 {
		g.sample(now, took)
	}
}

// grow lets time go by: whoever is open for too long does not count any more. The caller
// holds mu.
func (g *Gradient) grow(now time.Time) {
	life := int64(now.Sub(g.began) / lifeUnit)
	if gone := life - g.life; gone >= lives || gone <= -lives {
		g.ages, g.open, g.life = [lives]int{}, 0, life
	}
	for g.life < life {
		g.life++
		oldest := &g.ages[index(g.life, lives)]
		g.open -= *oldest
		*oldest = 0
	}
}

func (g *Gradient) sample(now time.Time, took time.Duration) {
	if g.probe.on && (g.probe.from.IsZero() || now.Add(-took).Before(g.probe.from)) {
		return
	}
	if len(g.samples) < maxSamples {
		g.samples = append(g.samples, took)
	}
	switch {
	case g.probe.on && (len(g.samples) >= probeSamples || now.After(g.probe.until)):
		g.endProbe(now)
	case !g.probe.on && len(g.samples) >= gradientSamples && now.Sub(g.since) >= gradientEvery:
		g.adjust(now)
	}
}

// adjust is the end of a window. The caller holds mu.
func (g *Gradient) adjust(now time.Time) {
	took, peak := g.median(), g.peak
	g.restart(now)
	other := false // the best time is another by now
	if g.best == 0 {
		g.best = took
	} else if took < g.best {
		other = float64(took) < better*float64(g.best)
		g.best = (g.best + took) / 2
	}
	rate := min(max(tolerated*float64(g.best)/float64(took), maxFall), maxRise)
	limit := g.limit * rate
	limit += math.Sqrt(limit) // room for those who come all at once
	if limit < g.limit || float64(peak) >= g.limit/2 {
		g.limit = min(max(limit, g.least), g.most)
	}
	g.top = max(g.top, g.limit)
	other = other || g.limit < g.top/collapse
	if other && now.Sub(g.probe.ended) >= probeAgain || !now.Before(g.probe.next) {
		g.beginProbe(now, int(g.limit), g.best)
	}
}

// beginProbe looks at how long RPCs take with half as much open. The caller holds mu.
func (g *Gradient) beginProbe(now time.Time, open int, last time.Duration) {
	g.probe.on, g.probe.last = true, last
	g.probe.limit = max(open/2, int(g.least))
	g.probe.until = now.Add(probeFor)
	g.probe.from = time.Time{}
	if g.open <= g.probe.limit {
		g.probe.from = now
	}
	g.restart(now)
}

// endProbe takes what was found, and looks again with half as much open if that may be
// better still. The caller holds mu.
func (g *Gradient) endProbe(now time.Time) {
	took, enough, peak := g.median(), len(g.samples) >= gradientSamples, g.peak
	open, last := g.probe.limit, g.probe.last
	g.probe.on, g.probe.ended = false, now
	g.probe.next = now.Add(time.Duration(float64(probeEvery) * (1 + probeJitter*(2*g.random()-1))))
	g.restart(now)
	if !enough {
		return
	}
	g.best, g.top = took, g.limit
	if open = min(open, peak); open > int(g.least) && float64(took) < better*float64(last) {
		g.beginProbe(now, open, took)
	}
}

func (g *Gradient) restart(now time.Time) {
	g.samples, g.since, g.peak = g.samples[:0], now, g.open
}

// median of the samples, zero when there are none. The caller holds mu.
func (g *Gradient) median() time.Duration {
	if len(g.samples) == 0 {
		return 0
	}
	slices.Sort(g.samples)
	return g.samples[len(g.samples)/2]
}
