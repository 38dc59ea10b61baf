-- Give a dead letter up: open calls are answered, the session goes to the next job.
-- ARGV: 1 job  2 session  3 member base  4 repair text
-- Output: {'gone'} | {'not_dead', status} | {'discarded', next `job|priority` or ''}
local status = redis.call('HGET', J, 'status')
if not status then return { 'gone' } end
if status ~= 'dead_lettered' or redis.call('HEXISTS', J, 'discarded') == 1 then return { 'not_dead', status } end
repair(ARGV[4], ARGV[3])
redis.call('HSET', J, 'discarded', '1')
redis.call('ZREM', DEAD, ARGV[1])
redis.call('HDEL', LETTERS, ARGV[1])
redis.call('HINCRBY', COUNTERS, 'letters.discarded', 1)
keep_new()
return { 'discarded', hand_over(clock(), ARGV[2]) }
