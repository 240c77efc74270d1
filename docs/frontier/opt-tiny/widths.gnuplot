set terminal svg size 748,420 dynamic font 'sans,12' background 'white'
set output 'widths.svg'
set title 'opt-tiny, 0 % sparsity, groups of 64, calibrated on wikitext2.calib.txt: widths of budget-model 3' noenhanced
set style data histograms
set style histogram rowstacked
set style fill solid 0.9
set boxwidth 0.85
set yrange [0:100]
set ylabel 'channels, %'
set xtics rotate by 60 right noenhanced font ',10'
set key outside right noenhanced
$data << EOD
"0.self_attn.k_proj" 0 0 56.25 43.75 0
"0.self_attn.v_proj" 0 0 100 0 0
"0.self_attn.q_proj" 21.875 74.4792 3.64583 0 0
"0.self_attn.out_proj" 0 9.375 90.625 0 0
"0.fc1" 0 1.04167 98.9583 0 0
"0.fc2" 0 97.3958 2.60417 0 0
"1.self_attn.k_proj" 100 0 0 0 0
"1.self_attn.v_proj" 98.9583 1.04167 0 0 0
"1.self_attn.q_proj" 20.3125 57.2917 22.3958 0 0
"1.self_attn.out_proj" 100 0 0 0 0
"1.fc1" 0.520833 98.3073 1.17188 0 0
"1.fc2" 9.89583 90.1042 0 0 0
"2.self_attn.k_proj" 0.520833 85.4167 14.0625 0 0
"2.self_attn.v_proj" 0 98.4375 1.5625 0 0
"2.self_attn.q_proj" 64.5833 35.4167 0 0 0
"2.self_attn.out_proj" 0 98.9583 1.04167 0 0
"2.fc1" 0.130208 99.2188 0.651042 0 0
"2.fc2" 48.4375 51.5625 0 0 0
"3.self_attn.k_proj" 35.4167 64.5833 0 0 0
"3.self_attn.v_proj" 0 98.9583 1.04167 0 0
"3.self_attn.q_proj" 64.5833 35.4167 0 0 0
"3.self_attn.out_proj" 0.520833 97.3958 2.08333 0 0
"3.fc1" 0 88.2812 11.7188 0 0
"3.fc2" 35.4167 64.5833 0 0 0
EOD
plot $data using 2:xtic(1) lc rgb '#313695' title '2 bits', $data using 3 lc rgb '#74add1' title '3 bits', $data using 4 lc rgb '#fee090' title '4 bits', $data using 5 lc rgb '#f46d43' title '6 bits', $data using 6 lc rgb '#a50026' title '8 bits'
