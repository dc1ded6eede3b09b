// Whole episodes of the swing-up by attention neurons: StackedAttentionNeuron in stacked.py and the dynamics of
// envs/sensors/cartpole_swingup.py in one loop. A lane of the vectors is an episode, with a set of parameters of its
// own; where one ends the next begins, so that lanes are busy whatever the sets' number of episodes.
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr int64_t LANES = 16, TOKENS = 5;

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Wholes __attribute__((vector_size(4 * LANES)));

// 1 / (1 + exp(-x)) to 1e-7: two to the nearest whole number, and to the rest by its power series.
inline Floats sigmoid(Floats x) {
    x = x < -80.0f ? -80.0f - Floats{} : x;
    x = x > 80.0f ? 80.0f - Floats{} : x;
    const Floats t = x * -1.44269504089f;
    const Floats nearest = (t + 12582912.0f) - 12582912.0f;  // 1.5 * 2^23: what follows the point is rounded off
    const Floats rest = t - nearest;
    Floats power = rest * 1.54035304e-4f + 1.33335581e-3f;
    power = power * rest + 9.61812911e-3f;
    power = power * rest + 5.55041087e-2f;
    power = power * rest + 2.40226507e-1f;
    power = power * rest + 6.93147181e-1f;
    power = power * rest + 1.0f;
    const Wholes bits = (__builtin_convertvector(nearest, Wholes) + 127) << 23;
    // The reciprocal by Newton's steps from a guess of its exponent: a division takes four times as long.
    const Floats divisor = 1.0f + power * (Floats)bits;
    Floats found = (Floats)(0x7EF311C3 - (Wholes)divisor);
    for (int step = 0; step < 3; ++step) found *= 2.0f - divisor * found;
    return found;
}

constexpr double GRAVITY = 9.82, CART = 0.5, POLE = 0.5, LENGTH = 0.6, FRICTION = 0.1;
constexpr double TIME_STEP = 0.01, FORCE = 10.0, TRACK = 2.4, PI = 3.14159265358979323846;

struct Cart {
    double x, speed, angle, spin, cos, sin;

    double step(double action) {  // the reward
        const double push = action * FORCE - FRICTION * speed, swing = spin * spin * sin, total = CART + POLE;
        const double weight = 4 * total - 3 * POLE * cos * cos, mass = POLE * LENGTH;
        const double of_cart = (push * 4 - 2 * mass * swing + sin * cos * (3 * POLE * GRAVITY)) / weight;
        const double of_pole = ((push * 6 - 3 * mass * swing) * cos + 6 * total * GRAVITY * sin) / weight;
        x += TIME_STEP * speed;
        angle += TIME_STEP * spin;
        speed += TIME_STEP * of_cart;
        spin += TIME_STEP * of_pole / LENGTH;
        turn();
        return 0.5 * std::cos(x * (PI / 2 / TRACK)) * (1 + cos);
    }

    void turn() { cos = std::cos(angle), sin = std::sin(angle); }
};

}  // namespace

// All arrays are contiguous. Of each set: gates (4 hidden, inputs), scores (answers, keyed), head: weight (outputs,
// inputs) and bias of each of its layers. Inputs are the state, 1, the reading and the last action; the key reads
// the first of them, without or with the 1. Episodes are (sets, rows): starts (4, sets, rows) and what is found.
extern "C" void somite_swingup(
    const float* gates, const float* scores, const float* head, const int64_t* outputs, int64_t layers,
    const double* starts, double* returns, int64_t* lengths, uint8_t* diverged, int64_t steps, int64_t sets,
    int64_t rows, int64_t hidden, int64_t answers, int64_t keyed) {
    const int64_t inputs = hidden + 3, episodes = sets * rows;
    int64_t head_size = 0, widest = answers;
    for (int64_t layer = 0, in = answers; layer < layers; in = outputs[layer++]) {
        head_size += outputs[layer] * (in + 1);
        widest = outputs[layer] > widest ? outputs[layer] : widest;
    }
    const int64_t gates_size = 4 * hidden * inputs, scores_size = answers * keyed;
    std::vector<Floats> weights(gates_size + scores_size + head_size), columns(inputs * TOKENS), cell(hidden * TOKENS);
    std::vector<Floats> gate(4 * hidden * TOKENS), values(widest), next(widest);
    Cart carts[LANES] = {};
    int64_t who[LANES], step[LANES], begun = 0, running = 0;

    const auto begin = [&](int64_t lane) {  // the next episode; -1: there is none
        who[lane] = begun < episodes ? begun++ : -1;
        if (who[lane] < 0) return;
        ++running;
        const int64_t set = who[lane] / rows;
        Floats* to = weights.data();
        for (int64_t i = 0; i < gates_size; ++i) (*to++)[lane] = gates[set * gates_size + i];
        for (int64_t i = 0; i < scores_size; ++i) (*to++)[lane] = scores[set * scores_size + i];
        for (int64_t i = 0; i < head_size; ++i) (*to++)[lane] = head[set * head_size + i];
        for (int64_t i = 0; i < inputs * TOKENS; ++i) columns[i][lane] = i / TOKENS == hidden;
        for (auto& value : cell) value[lane] = 0.0f;
        const double* start = starts + who[lane];
        carts[lane] = {start[0], start[episodes], start[2 * episodes], start[3 * episodes], 0, 0};
        carts[lane].turn();
        step[lane] = 0;
    };
    for (int64_t lane = 0; lane < LANES; ++lane) begin(lane);

    Floats* readings = columns.data() + (hidden + 1) * TOKENS;
    while (running) {
        for (int64_t lane = 0; lane < LANES; ++lane) {
            const Cart& cart = carts[lane];
            const double read[TOKENS] = {cart.x, cart.speed, cart.cos, cart.sin, cart.spin};
            for (int64_t token = 0; token < TOKENS; ++token) readings[token][lane] = static_cast<float>(read[token]);
        }
        const Floats* weight = weights.data();
        const auto product = [&](int64_t inner, Floats* sums) {
            for (int64_t token = 0; token < TOKENS; ++token) sums[token] = Floats{};
            for (int64_t k = 0; k < inner; ++k, ++weight)
                for (int64_t token = 0; token < TOKENS; ++token) sums[token] += *weight * columns[k * TOKENS + token];
        };
        Floats sums[TOKENS];
        for (int64_t row = 0; row < 4 * hidden; ++row) {
            product(inputs, sums);
            for (int64_t token = 0; token < TOKENS; ++token) gate[row * TOKENS + token] = sigmoid(sums[token]);
        }
        const int64_t part = hidden * TOKENS;  // of the gates: enter, keep, candidate, leave
        for (int64_t i = 0; i < part; ++i) {
            cell[i] = gate[part + i] * cell[i] + 4.0f * (gate[2 * part + i] - 0.5f) * gate[i];
            columns[i] = gate[3 * part + i] * (sigmoid(cell[i]) - 0.5f);
        }
        Floats whole = Floats{};
        for (int64_t token = 0; token < TOKENS; ++token) whole += readings[token];
        for (int64_t answer = 0; answer < answers; ++answer) {
            product(keyed, sums);
            Floats sum = Floats{};
            for (int64_t token = 0; token < TOKENS; ++token) sum += sigmoid(sums[token]) * readings[token];
            values[answer] = sigmoid(4.0f * sum - 2.0f * whole);
        }
        for (int64_t layer = 0, in = answers; layer < layers; in = outputs[layer++]) {
            const Floats* bias = weight + outputs[layer] * in;
            for (int64_t out = 0; out < outputs[layer]; ++out) {
                Floats sum = *bias++;
                for (int64_t k = 0; k < in; ++k) sum += *weight++ * values[k];
                next[out] = 2.0f * sigmoid(2.0f * sum) - 1.0f;  // tanh; the last one's is the action
            }
            weight = bias;
            values.swap(next);
        }
        for (int64_t token = 0; token < TOKENS; ++token) readings[TOKENS + token] = values[0];
        for (int64_t lane = 0; lane < LANES; ++lane) {
            if (who[lane] < 0) continue;
            const double reward = carts[lane].step(values[0][lane]);
            // As SensorEnv: what is not finite ends the episode, without a reward.
            const bool broken = !std::isfinite(reward + static_cast<float>(carts[lane].speed + carts[lane].spin));
            lengths[who[lane]] = ++step[lane];
            diverged[who[lane]] = broken;
            if (!broken) returns[who[lane]] += reward;
            if (broken || std::fabs(carts[lane].x) > TRACK || step[lane] == steps) {
                --running;
                begin(lane);
            }
        }
    }
}
