package balance

import "math/bits"

// lottery draws an index with the probability of its weight in constant time:
// Walker's alias method. Each index owns one urn of equal size; what it does not
// fill is filled by one other index, which has too much. The arithmetic is exact,
// and weight zero is never drawn.
type lottery []urn

type urn struct {
	own   uint32 // of 2^32: how often the urn stands for its own index
	other uint32 // the index that it stands for otherwise
}

// newLottery fills the urns. Weights are below 2^32, their total is theirs.
func newLottery(weights []uint64, total uint64) lottery {
	n := uint64(len(weights))
	lots := make(lottery, n)
	left := make([]uint64, n) // what is still to be poured; an urn holds total
	var poor, rich []int
	for i, w := range weights {
		left[i] = w * n
		if left[i] < total {
			poor = append(poor, i)
		} else {
			rich = append(rich, i)
		}
	}
	for len(poor) > 0 {
		// While an urn is not full another overflows, for together they hold n
		// times the total.
		i, giver := poor[len(poor)-1], rich[len(rich)-1]
		poor = poor[:len(poor)-1]
		lots[i] = urn{own: share(left[i], total), other: uint32(giver)}
		if left[giver] -= total - left[i]; left[giver] < total {
			rich = rich[:len(rich)-1]
			poor = append(poor, giver)
		}
	}
	for _, i := range rich {
		lots[i] = urn{other: uint32(i)} // full to the brim: always its own
	}
	return lots
}

// share is part/total as a fraction of 2^32, part being the smaller one.
func share(part, total uint64) uint32 {
	q, _ := bits.Div64(part>>32, part<<32, total)
	return uint32(q)
}

// draw turns 64 random bits into an index: the upper half chooses the urn, the
// lower half whom it stands for.
func (l lottery) draw(random uint64) int {
	i := random >> 32 * uint64(len(l)) >> 32
	if uint32(random) < l[i].own {
		return int(i)
	}
	return int(l[i].other)
}
